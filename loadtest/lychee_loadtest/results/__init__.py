"""Results of load tests: the file that holds them, the table and the chart."""
