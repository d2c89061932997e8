"""
One shopper's way through a shop, told: three views, log-in, merge, purchase, erasure, and the slate before and after
each, as Markdown.

    python -m loadtests.transcript --url http://127.0.0.1:8000 [--count 8] > transcript.md

Needs nothing but the address of a running tutti. Visitor and user are new ones of its own, so nobody real is erased.
The rule: every sentence that claims something was looked at in the answer. Exit code 1 when a claim did not hold.
"""

from __future__ import annotations

import argparse
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

ANSWER_WITHIN_S = 10.0

ATTEMPTS = 5
"""A slate that had lost the shopper says so and claims nothing of them; it is asked for again so often."""

Json = dict[str, Any]


@dataclass
class Teller:
    """Asks, prints what came, and remembers what did not hold."""

    client: httpx.Client
    count: int
    last: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def slate(self, title: str, **who: str) -> Json:
        """The home shelf of somebody, beside the one before it."""
        asked = {"placement": "home", "count": self.count, **who}
        answer, n_asked = self.ask("POST", "/v1/recommendations", asked), 1
        while "user" in answer["quality"]["degraded"] and n_asked < ATTEMPTS:
            answer, n_asked = self.ask("POST", "/v1/recommendations", asked), n_asked + 1
        items = answer["items"]
        print(f"\n### {title}\n")
        quality = answer["quality"]
        by = " and ".join(f"`{name}: {one}`" for name, one in who.items())
        without = f" (without {', '.join(quality['degraded'])})" if quality["degraded"] else ""
        how = ", remembered" if quality["from_cache"] else ""
        how += f", asked for {n_asked} times" if n_asked > 1 else ""
        watermark = "none" if answer["watermark"] is None else answer["watermark"]
        level = f"level `{quality['level']}`{without}{how}"
        print(f"By {by}: {level}, watermark {watermark}, {answer['took_ms']:.1f} ms.")
        print("\n| | was | | category | proposed by |\n|---|---|---|---|---|")
        for item in items:
            said, was = item["properties"], self.last.get(item["id"])
            before = "" if not self.last else "new" if was is None else str(was)
            sources = ", ".join(item["sources"])
            print(f"| {item['rank']} | {before} | {said.get('title')} | {said.get('category')} | {sources} |")
        if self.last:
            came = sum(item["id"] not in self.last for item in items)
            stayed = sum(self.last.get(item["id"]) == item["rank"] for item in items)
            print(f"\nOf {len(items)} items {came} were not there before, and {stayed} are in the place they had.")
        self.last = {item["id"]: item["rank"] for item in items}
        return answer

    def event(self, kind: str, item: Json, **who: str) -> Json:
        """Tell what somebody did; the answer of `202`."""
        event = {"event_id": uuid.uuid4().hex, "event_type": kind, "item_id": item["id"], **who}
        answer = self.ask("POST", "/v1/events", {"events": [event]}, expected=202)
        print(f"\n`{kind}` of *{item['properties'].get('title')}*: 202, watermark {answer['watermark']}.")
        return answer

    def ask(self, method: str, path: str, body: Json | None = None, expected: int = 200) -> Json:
        """A call; what is not *expected* ends the transcript."""
        reply = self.client.request(method, path, json=body)
        if reply.status_code != expected:
            raise SystemExit(f"{method} {path}: {expected} was expected; found {reply.status_code} {reply.text[:300]}")
        answer: Json = reply.json()
        return answer

    def holds(self, is_so: bool, claim: str) -> None:
        """Say whether it is so."""
        print(f"\n{'Holds' if is_so else '**Does not hold**'}: {claim}")
        if not is_so:
            self.broken.append(claim)


def tell(teller: Teller) -> None:
    """The whole way."""
    run = uuid.uuid4().hex[:6]
    visitor, user = f"guest-{run}", f"shopper-{run}"
    print("# A shopper's way\n\nPrinted by `python -m loadtests.transcript`; nothing was waited for between two calls.")
    print("`was` is the place that an item had in the slate before.\n\n## A new visitor")
    first = teller.slate("Nobody knows them", visitor_id=visitor)
    teller.holds(not first["watermark"], "nothing of theirs is in the first slate")

    print("\n## Three views")
    item, seen = first["items"][len(first["items"]) // 2], []
    for number in (1, 2, 3):
        event = teller.event("view", item, visitor_id=visitor)
        seen.append(item)
        slate = teller.slate(f"After view {number}", visitor_id=visitor)
        teller.holds(
            slate["watermark"] == event["watermark"] == number, f"the slate after the 202 covers view {number}"
        )
        item = _next(teller, item, seen)

    print("\n## Log-in and merge\n\nThe user looked at something else, on another device, before.")
    elsewhere = next(one for one in first["items"][::-1] if _department(one) != _department(seen[0]))
    teller.event("view", elsewhere, user_id=user)
    teller.last = {}
    before = teller.slate("The user, before the merge", user_id=user)
    merged = teller.ask("POST", "/v1/identities:merge", {"visitor_id": visitor, "user_id": user})
    print(f"\n`POST /v1/identities:merge`: {merged['moved']} events moved, watermark {merged['watermark']}.")
    after = teller.slate("The user, after the merge", user_id=user)
    teller.holds(after["watermark"] >= before["watermark"] + 3, "what the visitor did is the user's now")
    again = teller.ask("POST", "/v1/identities:merge", {"visitor_id": visitor, "user_id": user})
    teller.holds(not again["is_new"] and again["moved"] == 0, "merging again changes nothing")

    print("\n## Purchase")
    bought = teller.event("purchase", seen[-1], user_id=user)
    slate = teller.slate("After the purchase", user_id=user)
    teller.holds(slate["watermark"] == bought["watermark"], "the slate after the 202 covers the purchase")
    held = teller.ask("GET", f"/v1/users/{user}")
    kinds = [deed["event_type"] for deed in held["history"]]
    print(f"\n`GET /v1/users/{user}`: history {', '.join(kinds)}; visitors {held['visitor_ids']}.")
    teller.holds(sorted(kinds) == ["purchase", "view", "view", "view", "view"], "all five are in the export")

    print("\n## Erasure")
    erased = teller.ask("DELETE", f"/v1/users/{user}", expected=202)
    print(f"\n`DELETE /v1/users/{user}`: erased {erased['erased']}; later: {', '.join(erased['later'])}.")
    left = teller.ask("GET", f"/v1/users/{user}")
    is_empty = not (left["history"] or left["features"] or left["slates"] or left["visitor_ids"] or left["watermark"])
    teller.holds(is_empty, "nothing is held of the user")
    gone = teller.ask("GET", f"/v1/visitors/{visitor}")
    teller.holds(not gone["history"] and not gone["merged_into"], "nor of the visitor who was merged")
    teller.last = {item["id"]: item["rank"] for item in first["items"]}
    last = teller.slate("Somebody new under the same id, beside the first slate", user_id=user)
    teller.holds(not last["watermark"], "nothing of theirs is in the slate")


def _next(teller: Teller, item: Json, seen: Sequence[Json]) -> Json:
    """What somebody who looks at *item* is shown first beside it, and has not looked at."""
    shown = teller.ask("GET", f"/v1/items/{item['id']}/similar")["items"]
    known = {one["id"] for one in seen}
    found: Json = next(one for one in shown if one["id"] not in known)
    return found


def _department(item: Json) -> str:
    return str(item["properties"].get("category")).partition(" > ")[0]


def main() -> int:
    """Tell it; 1 when something that was claimed was not so."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--count", type=int, default=8, help="items of a slate")
    asked = parser.parse_args()
    with httpx.Client(base_url=asked.url, timeout=ANSWER_WITHIN_S) as client:
        teller = Teller(client, asked.count)
        tell(teller)
    for claim in teller.broken:
        print(f"does not hold: {claim}", file=sys.stderr)
    return 1 if teller.broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
