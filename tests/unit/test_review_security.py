"""Who may speak with the server of `fgfast review`: hostile requests over real sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the extra review is not installed")
pytest.importorskip("starlette", reason="the extra review is not installed")

from small_review import Browser, opening, served, small_run

from fgfast.errors import UsageError
from fgfast.review import security
from fgfast.review.security import Door, is_loopback
from fgfast.review.server import Server
from fgfast.review.session import Review


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return small_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def both(place: tuple[Path, Path]) -> Iterator[tuple[Server, Browser]]:
    with Review(opening(*place)) as review, served(review) as found:
        yield found


@pytest.fixture
def browser(both: tuple[Server, Browser]) -> Browser:
    return both[1]


def test_a_token_opens_the_page_once(both: tuple[Server, Browser]) -> None:
    server, _ = both
    address, one, two = server.new_address(), Browser(server.port), Browser(server.port)
    reply = one.open(address)
    assert (reply.status, reply.headers["location"]) == (303, "/")
    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie and "Domain" not in cookie
    assert one.get("/api/state").status == 200
    again = two.open(address)
    assert again.status == 401 and "set-cookie" not in again.headers
    assert b"Enter" in again.body and again.headers["content-type"].startswith("text/html")
    assert two.get("/api/state").status == 401


@pytest.mark.parametrize("token", ["", "x" * 43, "%00", "%ff%fe", "a&token=b", "%C3%A9"])
def test_no_other_token_does(both: tuple[Server, Browser], token: str) -> None:
    stranger = Browser(both[0].port)
    reply = stranger.get(f"/?token={token}")
    assert reply.status == 401 and "set-cookie" not in reply.headers


def test_without_cookie_nothing_is_answered(both: tuple[Server, Browser]) -> None:
    stranger = Browser(both[0].port)
    for path in ("/", "/static/index.html", "/api/state", "/api/queue", "/api/items?ids=1", "/api/items/1/image", "/x"):
        assert stranger.get(path).status == 401, path
    assert stranger.post("/api/decide", {"changes": []}).status == 401
    stranger.cookie = f"fgfast_review_{both[0].port}=guess; other=1"
    assert stranger.get("/api/state").status == 401


def test_a_cookie_of_an_earlier_server_opens_nothing(place: tuple[Path, Path], tmp_path: Path) -> None:
    with Review(opening(*place, readonly=True)) as review:
        with served(review) as (server, browser):
            port = server.port
            assert browser.get("/api/state").status == 200
        with Server(review, "127.0.0.1", port) as _:
            reply = browser.get("/api/state")
            assert reply.status == 401 and "started again" in reply.json["error"]


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example:1", "10.0.0.1", "", "[::1",
     "127.0.0.1:80:80", "127.0.0.1:x", "user@127.0.0.1", "0.0.0.0", "127.0.0.1, evil.example"],
)  # fmt: skip
def test_a_foreign_host_is_refused(browser: Browser, host: str) -> None:
    reply = browser.get("/api/state", Host=host or "''")
    assert reply.status == 403 and "Host" in reply.json["error"]


def test_a_name_that_was_rebound_is_refused_even_with_its_own_origin(browser: Browser) -> None:
    reply = browser.post("/api/later", {"ids": [1], "later": True}, Host="evil.example", Origin="http://evil.example")
    assert reply.status == 403


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"])
def test_the_machine_s_own_names_are_taken_at_any_port(browser: Browser, name: str) -> None:
    for host in (name, f"{name}:{browser.port}", f"{name}:8080"):
        assert browser.get("/api/state", Host=host).status == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1:{port}", "file://"]
)
def test_a_foreign_origin_changes_and_reads_nothing(browser: Browser, origin: str) -> None:
    given = origin.format(port=browser.port)
    assert browser.post("/api/later", {"ids": [1], "later": True}, Origin=given).status == 403
    assert browser.get("/api/state", Origin=given).status == 403
    assert browser.get("/api/state").json["later"] == 0


def test_a_change_needs_an_origin(browser: Browser) -> None:
    assert browser.post("/api/later", {"ids": [1], "later": True}, Origin="").status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "x"])
def test_another_site_embeds_nothing(browser: Browser, site: str) -> None:
    assert browser.get("/api/items/1/image?side=64", **{"Sec-Fetch-Site": site}).status == 403
    assert browser.get("/api/items/1/image?side=64", **{"Sec-Fetch-Site": "same-origin"}).status == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_only_json_changes_anything(browser: Browser, kind: str) -> None:
    reply = browser.post("/api/later", {"ids": [1], "later": True}, **{"Content-Type": kind})
    assert reply.status == 400 and "JSON" in reply.json["error"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
def test_other_methods_are_refused(browser: Browser, method: str) -> None:
    assert browser.send(method, "/api/state", None, Origin=f"http://{browser.host}").status == 400


def test_get_changes_nothing(browser: Browser) -> None:
    before = browser.get("/api/state").json
    for path in ("decide", "undo", "later", "finish", "prepare", "items/1/propose", "items/1/refine"):
        assert browser.get(f"/api/{path}?ids=1&later=true").status == 404, path
    assert browser.get("/api/state").json == before


def test_every_answer_has_the_headers(both: tuple[Server, Browser]) -> None:
    server, browser = both
    answers = [browser.get(path) for path in ("/", "/x", "/api/state", "/api/items/1/image?side=64", "/static/../x")]
    answers += [Browser(server.port).get("/"), browser.get("/", Host="evil.example"), browser.post("/api/undo", {})]
    answers += [Browser(server.port).open(server.new_address())]
    for reply in answers:
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        assert "cache-control" in reply.headers and "server" not in reply.headers
        assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("length", [security.LARGEST_PLAIN_BODY + 1, 1 << 40])
def test_a_huge_upload_is_refused_before_it_is_read(browser: Browser, length: int) -> None:
    head = (
        f"POST /api/later HTTP/1.1\r\nHost: {browser.host}\r\nOrigin: http://{browser.host}\r\nCookie: {browser.cookie}"
        f"\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", browser.port), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(12) == b"HTTP/1.1 413"


def test_a_huge_upload_in_chunks_is_cut_off(browser: Browser) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * (1 << 15)

    try:
        reply = browser.send(
            "POST", "/api/later", chunks(),
            **{"Content-Type": "application/json", "Origin": f"http://{browser.host}"},
        )  # fmt: skip
    except (BrokenPipeError, ConnectionResetError):
        return  # the server hung up while we still spoke
    assert reply.status == 413


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"[" * 100_000, b'{"ids": NaN}', b"\xff", b'{"ids": ' + b"9" * 5000 + b"}"]
)
def test_what_is_no_json_object_is_refused(browser: Browser, body: bytes) -> None:
    reply = browser.post("/api/later", body)
    assert reply.status == 400 and reply.json["error"]


@pytest.mark.parametrize(
    "path",
    ["/static/../security.py", "/static/..%2f..%2fapp.py", "/static//etc/passwd", "/static/%2e%2e/app.py", "/static/",
     "/api/items/..%2f1/image", "/api/items/1%00/image",
     "/api/items/-1/mask", "/api/items/99999999999999999999999/mask",
     "/api/items/1.0/mask", "/api/items/0x1/mask", "/api/items/4294967297/mask"],
)  # fmt: skip
def test_addresses_are_numbers_not_paths(browser: Browser, path: str) -> None:
    assert browser.get(path).status in (400, 404)


def test_a_web_socket_is_refused(browser: Browser) -> None:
    wanted = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "eA==",
    }
    assert browser.get("/api/state", **wanted).status != 101


@pytest.mark.parametrize(
    ("host", "here"),
    [*((name, True) for name in ("127.0.0.1", "localhost", "::1", "[::1]")), ("0.0.0.0", False), ("10.1.2.3", False),
     ("evil.example", False)],
)  # fmt: skip
def test_loopback(host: str, here: bool) -> None:
    assert is_loopback(host) is here


def test_beyond_this_machine_addresses_are_taken_and_names_are_not() -> None:
    door = Door("0.0.0.0", 80)
    assert door.admits("10.1.2.3:80") and door.admits(socket.gethostname()) and door.admits("localhost")
    assert not door.admits("evil.example:80")
    assert not Door("127.0.0.1", 80).admits("10.1.2.3:80")


def test_a_port_in_use_is_said(both: tuple[Server, Browser], place: tuple[Path, Path]) -> None:
    with Review(opening(*place, readonly=True)) as review, pytest.raises(UsageError, match="--port"):
        Server(review, "127.0.0.1", both[0].port)


def test_an_address_of_another_machine_is_said(place: tuple[Path, Path]) -> None:
    with Review(opening(*place, readonly=True)) as review, pytest.raises(UsageError, match="--host"):
        Server(review, "192.0.2.1", 0)


def test_the_token_is_not_in_any_answer(both: tuple[Server, Browser]) -> None:
    server, browser = both
    token = server.new_address().partition("token=")[2]
    texts: list[Any] = [browser.get(path).body for path in ("/", "/api/state", "/x")]
    assert not any(token.encode() in text for text in texts)
    assert json.loads(texts[1])
