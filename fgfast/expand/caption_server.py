"""A model behind an address that speaks OpenAI's chat format: OpenAI, vLLM, llama.cpp, Ollama, LM Studio.

The `openai` client sends, and tries again after 408, 409, 429, 5xx and broken connections, waiting as long as the
server asks. The key comes from OPENAI_API_KEY, is read in the worker process, and is ***
in whatever is kept.
"""

from __future__ import annotations

import base64
import os
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from fgfast.errors import SampleError, UsageError
from fgfast.expand.caption_text import Answer, answer_in, plain

KEY = "OPENAI_API_KEY"
OPENAI = "https://api.openai.com/v1"
# Tries after the first one. The client waits 0.5 s, then twice as long each time, 8 s at most, or what the server asks.
_RETRIES = 8
# Seconds without a byte, after which a request has failed: a model on a CPU takes its time for an image.
_SILENCE = 120.0
PATIENCE = 170.0
"""Seconds after which no request about an image begins: with a last silence it has less than the 300 s, after which a
worker process counts as hung."""
# Bytes of an answer and of an error; a caption has some kilobytes.
_MOST_BYTES, _MOST_ERROR = 1 << 20, 1 << 16
# Of an error of the server, characters that are told.
_TOLD = 200
# With these the next image would fare no better: no key, not allowed, no such model.
_FOR_ALL = (401, 403, 404)


def checked(address: str) -> str:
    """Return the address of a server, without a slash at its end.

    Raises:
        UsageError: it is no address, or holds what would have to be kept secret.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"api-base must be an address such as {OPENAI} or http://localhost:8000/v1")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise UsageError(
            f"the address of a model's server must not hold a user, a password or a query, because it is written to "
            f"run.json: pass a key by the environment, in {KEY}"
        )
    return address.rstrip("/")


def sends_key(address: str) -> bool:
    """Whether the key is sent to an address: over https, or within this machine."""
    parts = urlsplit(address)
    return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")


class Pace:
    """Lets requests begin at equal distances in time; for any number of threads of one process."""

    def __init__(self, per_minute: float | None) -> None:
        """Let so many begin per minute; None sets no limit."""
        self._apart = 60 / per_minute if per_minute else 0.0
        self._next, self._lock = 0.0, threading.Lock()

    def wait(self) -> None:
        """Return once a request may begin."""
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + self._apart
        time.sleep(at - now)


class Server:
    """A model behind an address; for any number of threads."""

    def __init__(self, address: str, model: str, per_minute: float | None, tokens: int, no_temperature: bool) -> None:
        """Prepare requests; none is sent.

        Args:
            address: of the server, `checked`.
            model: the model's name there.
            per_minute: most requests that begin per minute, repeated ones among them.
            tokens: most tokens of an answer.
            no_temperature: leave the temperature to the server, as models that reason demand; otherwise it is 0.
        """
        import openai

        self._host, self._model, self._pace = urlsplit(address).netloc, model, Pace(per_minute)
        self._key = os.environ.get(KEY, "") if sends_key(address) else ""
        self._more = limits(address, tokens, no_temperature)
        self._refused = ""
        self._asking = threading.local()
        self._client = openai.OpenAI(
            api_key=self._key or "none",
            base_url=address,
            max_retries=_RETRIES,
            timeout=_SILENCE,
            # Compressed, a megabyte could become a thousand.
            default_headers={"Accept-Encoding": "identity"},
            http_client=openai.DefaultHttpxClient(
                follow_redirects=False,
                event_hooks={"request": [self._turn], "response": [_bound]},
            ),
        )

    def _turn(self, request: Any) -> None:
        """Wait until a request may begin; too late, none may."""
        import openai

        self._pace.wait()
        if time.monotonic() > self._asking.until:
            raise openai.OpenAIError("too late")

    def ask(self, image: bytes, question: str, until: float) -> Answer:
        """Ask about an image.

        Args:
            image: JPEG.
            question: the question.
            until: time of `time.monotonic` after which no request begins.

        Raises:
            SampleError: the server does not answer, refuses, or answers something else.
        """
        import openai

        if self._refused:
            raise SampleError("server", self._refused)
        self._asking.until = until
        data: dict[str, Any] = {"model": self._model, "messages": messages(question, url_of(image)), **self._more}
        try:
            with self._client.chat.completions.with_streaming_response.create(**data) as response:
                body = bytearray()
                for chunk in response.iter_bytes(_MOST_ERROR):
                    body += chunk
                    if len(body) > _MOST_BYTES:
                        break
        except openai.APIStatusError as error:
            raise self._status(error) from None
        except openai.APITimeoutError:
            raise SampleError("server", f"{self._host} does not answer in time") from None
        except openai.APIConnectionError:
            self._refused = f"{self._host} cannot be reached; no further image was asked about"
            raise SampleError("server", self._refused) from None
        except openai.OpenAIError as error:
            raise SampleError("server", f"{self._host} does not answer as it should: {error}"[:_TOLD]) from None
        except Exception as error:  # of the client's own transport, while the body is read
            raise SampleError("server", f"{self._host} ended its answer early ({type(error).__name__})") from None
        return answer_in(bytes(body), self._key)

    def _status(self, error: Any) -> SampleError:
        """Return the error of a status, with what the server says about it."""
        status = int(error.status_code)
        said = ""
        if error.response.is_closed and isinstance(error.message, str):
            said = plain(error.message, self._key, _TOLD)[0]
        text = f"{self._host} answers {status}{f': {said}' if said else ''}"
        if status in _FOR_ALL:
            hint = f"; set the key in {KEY}" if status == 401 else ""
            text += f"{hint}; no further image was asked about"
            self._refused = text
        return SampleError("server", text)


def limits(address: str, tokens: int, no_temperature: bool) -> dict[str, Any]:
    """Return what a request says about the answer; see `Server`."""
    # OpenAI's own models take the new name alone, and other servers know the old one.
    limit = "max_completion_tokens" if address == OPENAI else "max_tokens"
    return {limit: tokens} | ({} if no_temperature else {"temperature": 0})


def messages(question: str, url: str) -> list[dict[str, Any]]:
    """Return a question about an image in OpenAI's chat format."""
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    return [{"role": "user", "content": parts}]


def url_of(image: bytes) -> str:
    """Return a JPEG as a data: URL."""
    return f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"


def _bound(response: Any) -> None:
    """Refuse what could be larger than it seems, before it is read."""
    import openai

    headers = response.headers
    if headers.get("content-encoding", "identity") != "identity":
        raise openai.OpenAIError("a compressed answer")
    length = headers.get("content-length", "")
    if response.status_code >= 300 and not (length.isdecimal() and int(length) <= _MOST_ERROR):
        response.close()
