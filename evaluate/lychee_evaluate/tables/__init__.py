"""Tables as people have them: what Excel, WPS and exports write, read without guessing."""
