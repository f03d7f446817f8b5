"""`/login` and `/logout`: browsers show images without an Authorization header, so they get a cookie for the token."""

import asyncio
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Form, Request
from jinja2 import Environment
from starlette.responses import HTMLResponse, RedirectResponse, Response

from query.service.routes.shared import service_of
from query.service.sessions import COOKIE, SESSION_S

WRONG_TOKEN_S = 0.5
"""Seconds before a wrong token is refused."""

router = APIRouter(include_in_schema=False)  # for people; programs send the token
_FORM = Environment(autoescape=True).from_string(
    (files("query.service.page") / "templates" / "login.html").read_text(encoding="utf-8")
)


@router.get("/login")
async def login_form(request: Request) -> Response:
    """The form that asks for the token. Its query is that of the page, which follows."""
    if not service_of(request).sessions.are_needed:
        return _to_page(request)
    return _form(request)


@router.post("/login")
async def log_in(request: Request, token: Annotated[str, Form(max_length=1_000)] = "") -> Response:
    """Give a cookie for the token."""
    sessions = service_of(request).sessions
    if not sessions.are_needed:
        return _to_page(request)
    if not sessions.is_token(token.strip().encode()):
        await asyncio.sleep(WRONG_TOKEN_S)
        return _form(request, is_wrong=True)
    response = _to_page(request)
    response.set_cookie(COOKIE, sessions.cookie(), max_age=SESSION_S, **_scope_of_cookie(request))
    return response


@router.post("/logout")
async def log_out(request: Request) -> Response:
    """Take the cookie away."""
    response = RedirectResponse("login", 303)
    response.delete_cookie(COOKIE, **_scope_of_cookie(request))
    return response


def _form(request: Request, is_wrong: bool = False) -> Response:
    return HTMLResponse(_FORM.render(query=_query(request), is_wrong=is_wrong), 401 if is_wrong else 200)


def _to_page(request: Request) -> Response:
    return RedirectResponse(f"./{_query(request)}", 303)  # relative: to no other site


def _query(request: Request) -> str:
    return f"?{request.url.query}" if request.url.query else ""


def _scope_of_cookie(request: Request) -> dict:
    return {
        "path": request.scope["root_path"] or "/",
        "secure": request.url.scheme == "https",
        "httponly": True,
        "samesite": "strict",
    }
