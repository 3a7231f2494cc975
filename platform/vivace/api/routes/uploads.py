"""`POST /v1/uploads`: replies and recordings of them, checked, and stored under the hash of their bytes."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import func, select
from starlette.requests import ClientDisconnect

from vivace.api.access import House, InHouse, Submitter
from vivace.api.answered import Uploaded
from vivace.api.contents import check_upload
from vivace.api.faults import Refused, answers
from vivace.engine.access.tokens import Bearer
from vivace.files.content_hash import file_sha256
from vivace.store.artifacts import open_artifacts
from vivace.store.records import insert_new
from vivace.store.tables import Upload

router = APIRouter(tags=["uploads"])

MOST_AT_ONCE = 8
"""Uploads that are taken at a time, so that what is half there does not fill the disk."""
MOST_OF_ONE = 2
"""Of one person, so that nobody who sends slowly keeps the others out."""
_under_way: Counter[str] = Counter()
"""Owner → uploads that are being sent."""

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-ndjson": {"schema": {"type": "string"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
        "description": "JSON lines of `id` and `response`, and of `audio` (the SHA-256 of a recording that was sent "
        "before), `ttft_s`, `first_audio_s`, `total_s` where there are; or one recording, as WAV, FLAC, Ogg or MP3.",
    }
}


@router.post("/v1/uploads", status_code=201, responses=answers(401, 403, 408, 413, 415), openapi_extra=_BODY)
async def upload(request: Request, house: InHouse, bearer: Submitter) -> Uploaded:
    """Send in replies, whose SHA-256 a submission names as its `outputs`; or a recording, which a reply names."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("multipart/"):
        raise Refused(415, "Send the file itself as the body of the request, not a form.")
    if _under_way[bearer.owner] >= MOST_OF_ONE:
        raise Refused(429, f"{MOST_OF_ONE} uploads of yours are under way; come again when one has ended.", 5)
    if _under_way.total() >= MOST_AT_ONCE:
        raise Refused(429, "Others are sending, too; come again in a moment.", 5)
    _under_way[bearer.owner] += 1
    try:
        return await _received(request, house, bearer)
    finally:
        _under_way.subtract([bearer.owner])


async def _received(request: Request, house: House, bearer: Bearer) -> Uploaded:
    house.settings.home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="upload-", dir=house.settings.home) as folder:
        path = Path(folder) / "upload"
        size = 0
        try:
            with path.open("xb") as file:
                async for piece in request.stream():
                    size += file.write(piece)
        except ClientDisconnect:
            raise Refused(400, "The upload broke off.") from None
        return await run_in_threadpool(_taken, house, bearer, path, size)


def _taken(house: House, bearer: Bearer, path: Path, size: int) -> Uploaded:
    if not size:
        raise Refused(422, "The upload is empty.")
    held = check_upload(path, house.door.limits)
    most = int(house.door.limits.uploads_mb_per_owner * 2**20)
    sha256 = file_sha256(path)
    others = (Upload.owner == bearer.owner, Upload.sha256 != sha256)  # what is sent again takes no more room
    with house.database.read() as session:
        total = session.scalar(select(func.sum(Upload.bytes)).where(*others)) or 0
    if total + size > most:
        raise Refused(413, f"Your uploads hold {total:,} bytes, and may hold {most:,}; ask the operator for more.")
    open_artifacts(house.settings).put_file(path)
    with house.database.write() as session:
        row = {"owner": bearer.owner, "sha256": sha256, "bytes": size, "rows": held.replies}
        insert_new(session, Upload, [row])
    return Uploaded(sha256=sha256, bytes=size, replies=held.replies, seconds=held.seconds)
