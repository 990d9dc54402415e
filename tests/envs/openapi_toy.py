"""A FastAPI service for tests: a library with what addresses, bodies and answers can be."""

import asyncio
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException, Query, Request, Response
from pydantic import BaseModel

app = FastAPI(title="Library")
books = {"dune": {"title": "Dune", "year": 1965}, "a/b c?": {"title": "Odd & even", "year": 2000}}


class Note(BaseModel):
    text: str
    stars: int = 3
    replies: "list[Note]" = []


@app.get("/books", operation_id="list_books")
def list_books(tag: Annotated[list[str], Query()] = [], after: int = 0) -> dict[str, object]:  # noqa: B006
    """List the books."""
    return {"keys": sorted(key for key, book in books.items() if book["year"] >= after), "tag": tag}


@app.get("/books/{key:path}", operation_id="get_book", summary="One book", description="By its key.")
def get_book(key: str) -> dict[str, object]:
    if key not in books:
        raise HTTPException(404, f"no book {key!r}")
    return books[key]


@app.post("/notes/{key}", operation_id="add_note", status_code=201)
def add_note(key: str, note: Note, x_reader: Annotated[str, Header()] = "nobody") -> dict[str, object]:
    """Add a note."""
    return {"key": key, "note": note.model_dump(), "reader": x_reader}


@app.get("/whoami", operation_id="whoami")
def whoami(request: Request) -> dict[str, str]:
    """Your headers."""
    return dict(request.headers)


@app.get("/here", operation_id="go_here")
def go_here() -> Response:
    """A redirect to this host."""
    return Response(status_code=302, headers={"location": "/books?after=1990"})


@app.get("/there", operation_id="go_there")
def go_there() -> Response:
    """A redirect to another host."""
    return Response(status_code=302, headers={"location": "http://example.invalid/books"})


@app.get("/big", operation_id="big")
def big() -> Response:
    """Five megabytes."""
    return Response(b"x" * 5_000_000, media_type="text/plain")


@app.get("/picture", operation_id="picture")
def picture() -> Response:
    """A picture."""
    return Response(b"\x89PNG", media_type="image/png")


@app.get("/slow", operation_id="slow")
async def slow() -> str:
    """Takes long."""
    await asyncio.sleep(30)
    return "late"


@app.delete("/books", operation_id="clear", status_code=204)
def clear() -> None:
    """Does nothing."""
