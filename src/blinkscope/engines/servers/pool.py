"""Requests to one or several servers: at most so many at a time, again where one failed, each answer once.

Everything runs on one event loop in a thread of its own, so that an engine can be used like any other. A request that
fails in a way that may pass (429, 5xx, a time-out, a cut connection, an answer that is not what was asked for) is made
again, with the same seed, after a random share of a growing pause or after what ``Retry-After`` says. A server that
does not answer at all is left out and tried again later; its requests go to the others.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import random
import threading
import time
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp

from blinkscope.engines.servers.address import Address, Servers
from blinkscope.engines.servers.dialect import Call, Drift, Malformed, Refused, own_words
from blinkscope.errors import EngineError, UserError

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 20.0  # seconds before a request is made again
MOST_FAULTS = 12  # of a request that reaches its server and fails there
CONNECT_SECONDS = 20.0
MEETING_SECONDS = 20.0  # for an answer to what needs no work; who is slower is not there
CLOSING_SECONDS = 5.0
THREAD = "blinkscope servers"
LARGEST_ANSWER = 2**28  # bytes
_PASSING = (408, 409, 425, 429, 500, 502, 503, 504, 529)
_BUSY = (429, 503, 529)  # the server says that it is not its fault: only patience limits these


class Unreachable(Exception):
    """A server did not answer; the text says how."""


class Passing(Exception):
    """A failure that may pass.

    busy: the server says that it is not its fault. after: seconds that it asks to wait. cut: it may have been started
    anew. foreign: it answered, with something that no server of models would say. slow: the time ran out.
    """

    def __init__(
        self,
        words: str,
        *,
        busy: bool = False,
        after: float | None = None,
        cut: bool = False,
        foreign: bool = False,
        slow: bool = False,
    ) -> None:
        super().__init__(words)
        self.busy, self.after, self.cut, self.foreign, self.slow = busy, after, cut, foreign, slow


@dataclass(eq=False)
class Endpoint:
    """One server and how it is doing.

    room: continuations that it may be given at a time. busy: those that it has. down: failures to answer in a row.
    until: time before which it is left out. met: whether it said what it is since it last did not answer or cut a
    connection; meeting: held while it is asked.
    """

    address: Address
    room: int = 1
    busy: int = 0
    down: int = 0
    until: float = 0.0
    met: bool = False
    meeting: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(eq=False)
class Pool:
    """The servers of one model.

    retried: requests that were made again. meet_again: asks a server, in another thread, whether it is what it was
    taken for; raises UserError where it is not.
    """

    servers: Servers
    endpoints: list[Endpoint] = field(init=False)
    retried: int = 0
    meet_again: Callable[[Pool, Endpoint], None] = lambda pool, endpoint: None

    def __post_init__(self) -> None:
        self.endpoints = [Endpoint(address) for address in self.servers.addresses]
        self._loop = asyncio.new_event_loop()
        self._sessions: list[aiohttp.ClientSession] = []
        self._row: OrderedDict[asyncio.Future[None], None] = OrderedDict()  # those who wait for room
        self._random = random.Random()
        thread = threading.Thread(target=self._loop.run_forever, name=THREAD, daemon=True)
        thread.start()
        # Also where nobody closes it, and at the end of the program.
        self.close = weakref.finalize(self, _close, self._loop, thread, self._sessions)
        """Close all connections and end the thread."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of work on the pool's loop."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def start(self, work: Coroutine[Any, Any, None]) -> Any:
        """Begin work on the pool's loop; returns what can be cancelled."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def ask(self, endpoint: Endpoint, call: Call[T]) -> T:
        """One request to one server, made once.

        Raises
        ------
        Refused, Passing, Unreachable : it said no, failed, or did not answer in time.
        """
        seconds = self.servers.timeout if call.body is not None else min(self.servers.timeout, MEETING_SECONDS)
        try:
            return self.run(self._once(endpoint, call, seconds))
        except Passing as fault:
            if fault.slow:  # to ask again would only double the time until that is said
                raise Unreachable(str(fault)) from fault
            raise

    def ask_any(self, calls: Sequence[Call[T]]) -> list[T]:
        """Several small requests at a time, each to any of the servers."""

        async def all_of_them() -> list[T]:
            return list(await asyncio.gather(*(self.send(call, b"", 0) for call in calls)))

        return self.run(all_of_them())

    async def send(self, call: Call[T], prefix: bytes, weight: int = 1) -> T:
        """One request, made until it is answered.

        Parameters
        ----------
        prefix : requests with the same one go to the same server while it has room, so that its cache is hit.
        weight : number of continuations that are asked for.

        Raises
        ------
        UserError : the servers refuse the request.
        EngineError : no server answered for as long as patience lasts, or the request failed too often.
        """
        since: float | None = None
        faults = 0
        while True:
            endpoint = await self._admit(prefix, weight)
            try:
                await self._meet(endpoint)
                answer = await self._once(endpoint, call, self.servers.timeout)
            except Refused as no:
                raise refusal(endpoint.address, no) from no
            except (Passing, Unreachable) as fault:
                since = time.monotonic() if since is None else since
                faults += isinstance(fault, Passing) and not fault.busy
                self.note_fault(endpoint, fault)
                pause = self._pause(fault, endpoint, faults)
                waited = time.monotonic() - since
                if waited + pause > self.servers.patience or faults >= MOST_FAULTS:
                    raise EngineError(
                        f"the server at {endpoint.address.host} failed for {waited:,.0f} s: {fault}. What was drawn is "
                        "kept; start the same command again to go on."
                    ) from fault
                self.retried += 1
            else:
                endpoint.down = 0
                return answer
            finally:
                self._leave(endpoint, weight)
            await asyncio.sleep(pause)

    async def _meet(self, endpoint: Endpoint) -> None:
        """Make sure that a server which was not there is what it should be before it is given work."""
        async with endpoint.meeting:
            if endpoint.met:
                return
            if endpoint.until > time.monotonic():
                raise Unreachable("it was left out just now")
            try:
                await asyncio.to_thread(self.meet_again, self, endpoint)
            except UserError as error:
                endpoint.until = math.inf
                warnings.warn(f"the server at {endpoint.address.host} is left out: {error}", stacklevel=2)
                raise Unreachable(str(error)) from error
            endpoint.met = True

    def note_fault(self, endpoint: Endpoint, fault: Exception) -> None:
        """Leave a server out that did not answer, for longer each time it is tried, and meet it when it is back."""
        if isinstance(fault, Unreachable) or (isinstance(fault, Passing) and fault.cut):
            endpoint.met = False
        if isinstance(fault, Unreachable) and endpoint.until <= time.monotonic():  # else it is left out already
            endpoint.down += 1
            endpoint.until = time.monotonic() + min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**endpoint.down)

    def _pause(self, fault: Passing | Unreachable, endpoint: Endpoint, faults: int) -> float:
        """Seconds before the request is made again: a random share of a pause that doubles."""
        if isinstance(fault, Unreachable):
            others = any(other.until <= time.monotonic() for other in self.endpoints)
            return 0.0 if others else self._random.uniform(0, FIRST_PAUSE) + endpoint.until - time.monotonic()
        if fault.after is not None:
            return fault.after + self._random.uniform(0, FIRST_PAUSE)
        return self._random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(faults, 10)))

    async def _admit(self, prefix: bytes, weight: int) -> Endpoint:
        """A server with room: the one that has the prefix in its cache, else the one with the most room.

        Those who find none wait in a row, the first who came first; a place that is left wakes the next one.
        """
        woken = False
        while True:
            now = time.monotonic()
            up = [endpoint for endpoint in self.endpoints if endpoint.until <= now]
            # A request heavier than a server's room goes to one that has nothing else to do.
            free = [endpoint for endpoint in up if endpoint.busy == 0 or endpoint.busy + weight <= endpoint.room]
            if free:
                own = max(up, key=lambda endpoint: _rank(prefix, endpoint)) if len(up) > 1 else free[0]
                chosen = own if own in free else min(free, key=lambda endpoint: endpoint.busy / endpoint.room)
                chosen.busy += weight
                self._wake()
                return chosen
            back = None if len(up) == len(self.endpoints) else min(e.until for e in self.endpoints if e not in up) - now
            turn = self._loop.create_future()
            self._row[turn] = None
            if woken:
                self._row.move_to_end(turn, last=False)
            woken = await self._woken(turn, back)

    async def _woken(self, turn: asyncio.Future[None], seconds: float | None) -> bool:
        """Wait for one's turn, or until a server that was left out may be tried again; whether it was the turn."""
        try:
            timeout = None if seconds is None else max(seconds, 0.01) * self._random.uniform(1, 1.5)
            await asyncio.wait([turn], timeout=timeout)
        except asyncio.CancelledError:
            if turn.done():  # it was for nothing; the next one may want it
                self._wake()
            raise
        finally:
            self._row.pop(turn, None)
        return turn.done()

    def _wake(self) -> None:
        """Let the first in the row see whether there is room."""
        if self._row:
            self._row.popitem(last=False)[0].set_result(None)

    def _leave(self, endpoint: Endpoint, weight: int) -> None:
        """Give back the room that ``_admit`` took."""
        endpoint.busy -= weight
        self._wake()

    async def _once(self, endpoint: Endpoint, call: Call[T], seconds: float) -> T:
        address = endpoint.address
        headers = {"Content-Type": "application/json"}
        if address.key is not None:
            headers["Authorization"] = f"Bearer {address.key}"
        body = None if call.body is None else json.dumps(call.body, separators=(",", ":")).encode()
        method = "GET" if body is None else "POST"
        try:
            # Redirects are not followed: what they lead to was not named, and the key is not meant for it.
            async with self._opened().request(
                method,
                address.url + call.path,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS),
            ) as answer:
                if answer.content_length is not None and answer.content_length > LARGEST_ANSWER:
                    raise Passing(f"its answer has {answer.content_length:,} bytes")
                content = await answer.read()
                status, after = answer.status, answer.headers.get("Retry-After")
        except aiohttp.ConnectionTimeoutError as error:  # it has more to do than to take calls
            raise Passing(f"no connection within {CONNECT_SECONDS:g} s", busy=True, slow=True) from error
        except TimeoutError as error:
            raise Passing(f"no answer within {seconds:g} s", slow=True) from error
        except (aiohttp.ClientConnectorSSLError, aiohttp.ClientConnectorCertificateError) as error:
            raise Unreachable(f"no connection by https: {_insecure(error)}") from error
        except aiohttp.ClientConnectorError as error:
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror or error
            raise Unreachable(f"no connection: {reason}") from error
        except (aiohttp.ServerDisconnectedError, ConnectionError) as error:
            raise Passing("it closed the connection", cut=True) from error
        except aiohttp.InvalidURL as error:
            raise UserError(f"{address.url} is no address of a server.") from error
        except (aiohttp.ClientError, UnicodeError) as error:
            raise Passing(f"its answer could not be read ({type(error).__name__})") from error
        return _read(call, status, content, after, address.key)

    def _opened(self) -> aiohttp.ClientSession:
        if not self._sessions:
            # Proxies and passwords of the environment stay out: a key goes to its host and to no other.
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
            self._sessions.append(session)
        return self._sessions[0]


def _close(
    loop: asyncio.AbstractEventLoop, thread: threading.Thread, sessions: Sequence[aiohttp.ClientSession]
) -> None:
    async def end() -> None:
        for session in sessions:
            await session.close()
        await asyncio.sleep(0)  # connections are closed on the loop's next turn
        loop.stop()

    asyncio.run_coroutine_threadsafe(end(), loop)
    # Where work was called off, its last request may be the last that knows the pool: then this is the loop's thread.
    if threading.current_thread() is not thread:
        thread.join(CLOSING_SECONDS)


def _rank(prefix: bytes, endpoint: Endpoint) -> bytes:
    """Rendezvous hashing: each prefix has its own order of the servers, and one that drops out moves only its own."""
    return hashlib.blake2b(prefix + endpoint.address.url.encode(), digest_size=8).digest()


def _read(call: Call[T], status: int, content: bytes, after: str | None, key: str | None) -> T:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        parsed = None
    if not 200 <= status < 300:
        text = content[:4000].decode("utf-8", errors="replace")
        words = own_words(text.replace(key, "***") if key else text, _without(parsed, key))
        if status in _PASSING:
            raise Passing(f"{status}: {words}", busy=status in _BUSY, after=_seconds(after))
        raise Refused(status, words)
    if parsed is None:
        raise Passing("its answer is no JSON", foreign=True)
    try:
        return call.read(parsed)
    except Drift:
        raise
    except (Malformed, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        words = str(error) if isinstance(error, Malformed) else "its answer has another form"
        raise Passing(words, foreign=True) from error


def _insecure(error: aiohttp.ClientConnectorSSLError | aiohttp.ClientConnectorCertificateError) -> str:
    """Why there is no secure connection, in the words of the library that makes them."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        inner = error.certificate_error
        return f"its certificate is not accepted ({getattr(inner, 'verify_message', '') or inner})"
    reason = getattr(error.os_error, "reason", None) or error.os_error
    return f"{str(reason).replace('_', ' ').lower()}; is it a server of http alone?"


def _without(parsed: Any, key: str | None) -> Any:
    """A parsed answer in which a key that the server sends back is not spelled out."""
    return json.loads(json.dumps(parsed).replace(json.dumps(key)[1:-1], "***")) if key else parsed


def _seconds(after: str | None) -> float | None:
    """``Retry-After`` in seconds; dates, which hardly any server of models sends, are passed over."""
    try:
        return min(max(float(after or ""), 0.0), 3600.0)
    except ValueError:
        return None


def refusal(address: Address, no: Refused) -> UserError:
    """The sentence for a request that a server refuses."""
    said = f'"{no.words}"' if no.words else "nothing"
    if no.status in (401, 403):
        what = "the key that was sent" if address.key else "a request without a key"
        return UserError(
            f"the server at {address.host} refuses {what} ({no.status}: {said}); set "
            f"BLINKSCOPE_KEYS={address.host}=KEY or put a line 'HOST KEY' into the key file."
        )
    if 300 <= no.status < 400:
        return UserError(
            f"the server at {address.host} sends requests elsewhere ({no.status}); name the right address."
        )
    return UserError(f"the server at {address.host} refuses the request ({no.status}): it says {said}.")
