"""Callers of the gateway's REST API, for Locust.

    locust --locustfile loadtest/locustfile.py --host http://localhost:7860

A key, where the gateway wants one, comes from LYCHEE_API_KEY. An answer 429 is no failure: it is counted under a name
of its own, and the caller waits as long as Retry-After says.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import random
from pathlib import Path
from typing import Any, Final

from locust import FastHttpUser, task
from payloads import fresh_photos, fresh_queries, fresh_texts

CATALOGUE: Final = Path(__file__).parent.parent / "examples" / "catalogue"
TEXTS: Final = 20
PHOTOS: Final = 4
MIXED: Final = 8
PHOTO_POOL: Final = 200
"""Photos that no cache has seen; made once, so that encoding them does not slow the callers down."""


def data_url(jpeg: bytes) -> str:
    """Return a JPEG file as the REST API takes it."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def read_catalogue() -> list[Any]:
    """Return the example catalogue's documents, which a cache may know, as the REST API takes them."""
    entries = json.loads((CATALOGUE / "catalogue.json").read_text(encoding="utf-8"))["documents"]
    documents: list[Any] = []
    for entry in entries:
        document = {"text": entry["text"]} if "text" in entry else {}
        if "photo" in entry:
            document["image"] = data_url((CATALOGUE / "photos" / entry["photo"]).read_bytes())
        documents.append(document)
    return documents


class Reranking(FastHttpUser):
    """A caller that sends the next call when it has the answer to the last."""

    catalogue: Final = read_catalogue()
    photos: Final = itertools.cycle([data_url(jpeg) for jpeg in itertools.islice(fresh_photos(), PHOTO_POOL)])
    queries: Final = fresh_queries()
    texts: Final = fresh_texts()

    def on_start(self) -> None:
        """Find the key."""
        key = os.environ.get("LYCHEE_API_KEY")
        self.key_headers = {"authorization": f"Bearer {key}"} if key else {}
        self.pause_s = 0.0

    def wait_time(self) -> float:
        """Return the seconds until the next call."""
        return self.pause_s

    @task(6)
    def rank_texts(self) -> None:
        """Rank short texts that no cache knows."""
        self.rank("texts", list(itertools.islice(self.texts, TEXTS)))

    @task(2)
    def rank_photos(self) -> None:
        """Rank photos."""
        self.rank("photos", [{"image": photo} for photo in itertools.islice(self.photos, PHOTOS)])

    @task(2)
    def rank_catalogue(self) -> None:
        """Rank texts, photos and both from the catalogue, which a cache may know."""
        self.rank("catalogue", random.sample(self.catalogue, MIXED))

    def rank(self, kind: str, documents: list[Any]) -> None:
        """Send one call and check that it ranked everything."""
        body = {"query": next(self.queries), "documents": documents}
        name = f"/v1/rerank {kind}"
        with self.client.post(
            "/v1/rerank", json=body, headers=self.key_headers, name=name, catch_response=True
        ) as response:
            self.pause_s = 0.0
            if response.status_code == 429:
                self.pause_s = float(response.headers.get("retry-after", 1))
                response.request_meta["name"] = f"{name}: 429"
                response.success()
            elif response.status_code != 200:
                response.failure(f"status {response.status_code}; expected 200 or 429")
            elif len(response.json()["results"]) != len(documents):
                response.failure("fewer results than documents")
