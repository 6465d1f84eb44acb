#!/bin/sh
# What every image does with its environment, once all is installed: leave out the tests of other packages (with their
# bytecode 70 MB in the gateway), and list what is there as CycloneDX. Usage: deploy/containers/finish.sh FOLDER
set -eu
find "$1" -type d -name tests -prune -exec rm -r {} +
cyclonedx-py environment --output-format JSON --output-file "$1/sbom.cdx.json" "$1/bin/python"
