"""What `helm test` runs: the gateway has to be ready, and to rank a kitten before a rocket."""

import json
import os
import sys
import urllib.request
from pathlib import Path

url, key_file = os.environ["LYCHEE_URL"], os.environ.get("LYCHEE_API_KEY_FILE")
headers = {"content-type": "application/json"}
if key_file:
    headers["authorization"] = f"Bearer {Path(key_file).read_text(encoding='utf-8').strip()}"


def ask(path: str, body: object = None) -> object:
    """Return the JSON that the gateway answers; an error of HTTP ends the test."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


print("ready:", ask("/health/ready"))
answer = ask("/v1/rerank", {"query": "a cat asleep on a sofa", "documents": ["a rocket", "a kitten on a couch"]})
print("ranked:", [(one["index"], one["relevance_score"]) for one in answer["results"]])
sys.exit(answer["results"][0]["index"] != 1)
