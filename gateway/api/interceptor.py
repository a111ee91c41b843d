"""What happens around every call: roles, limit, audit; errors become statuses; streams end at a shutdown.

Requests and responses are never logged: they carry keys.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2

from gateway.api.audit import Asked, audit
from gateway.api.call_limit import CallLimit
from gateway.api.errors import STATUS_DETAILS_KEY, answer_of
from gateway.api.roles import Caller, Role, caller_by_certificate, is_mutating
from gateway.controller.facade import ControlError, ControlErrorReason
from gateway.observe.logs import get_logger

OUR_METHODS: Final = "/gateway.api."
"""Health and reflection bring their own handling."""

_KEPT_MESSAGES: Final = 8
"""Of each kind of stream; a burst to all watchers is one or a few."""
_END_STREAMS_S: Final = 1.0
"""A watcher that has not taken its last message by then is cut off."""

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}

_log = get_logger("api")

# Handlers are typed by what they carry, which differs from method to method.
Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


class SerializeOnce:
    """Serializes a message once that goes to many clients; nobody may change one that was written.

    Args:
        serialize: Makes the bytes.
    """

    def __init__(self, serialize: Callable[[Any], bytes] | None) -> None:
        assert serialize is not None, "the generated code has one for every method"
        self._serialize = serialize
        #: By identity, which is theirs as long as they are kept here.
        self._recent: dict[int, tuple[object, bytes]] = {}

    def __call__(self, message: object) -> bytes:
        """Return the bytes of a message."""
        known = self._recent.get(id(message))
        if known is not None:
            return known[1]
        if len(self._recent) >= _KEPT_MESSAGES:
            del self._recent[next(iter(self._recent))]
        contents = self._serialize(message)
        self._recent[id(message)] = (message, contents)
        return contents


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every method of our services at one listener.

    Args:
        caller: Who calls there, where everybody who can connect is the same; `None`: the certificate tells.
        limit: How often each client may call; shared by all listeners of a server.
    """

    def __init__(self, caller: Caller | None, limit: CallLimit) -> None:
        self._caller = caller
        self._limit = limit
        self._stopping = asyncio.Event()
        self._streams: set[asyncio.Task[Any]] = set()
        self._serializers: dict[str, SerializeOnce] = {}

    async def stop(self) -> None:
        """End every stream, now and later, with SHUTTING_DOWN; return when those there are have ended."""
        self._stopping.set()
        if self._streams:
            await asyncio.wait(set(self._streams), timeout=_END_STREAMS_S)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return the method's handler, wrapped."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(OUR_METHODS):
            return handler
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler.unary_unary),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, handler.unary_stream),
                handler.request_deserializer,
                self._serializers.setdefault(method, SerializeOnce(handler.response_serializer)),
            )
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                self._conversation(method, handler.stream_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        raise NotImplementedError(f"{method}: calls of this kind are not let in by any rule")

    def _unary(self, method: str, behaviour: Any) -> Any:
        async def answer(request: Message, context: Context) -> object:
            async with self._around(method, Asked(request), context):
                return await behaviour(request, context)

        return answer

    def _stream(self, method: str, behaviour: Any) -> Any:
        async def answer(request: Message, context: Context) -> None:
            await self._write_all(method, Asked(request), context, lambda: behaviour(request, context))

        return answer

    def _conversation(self, method: str, behaviour: Any) -> Any:
        async def answer(requests: AsyncIterator[Message], context: Context) -> None:
            asked = Asked()
            caller = self._caller_of(context)

            async def counted() -> AsyncIterator[Message]:
                async for request in requests:
                    self._take(caller)
                    asked.add(request)
                    yield request

            await self._write_all(method, asked, context, lambda: behaviour(counted(), context))

        return answer

    async def _write_all(
        self, method: str, asked: Asked, context: Context, respond: Callable[[], Any]
    ) -> None:
        # A coroutine that writes, not a generator for gRPC to read: when the client goes away gRPC only drops
        # a generator, whose `finally` then runs after the call has been freed and its context points nowhere.
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        task.add_done_callback(self._streams.discard)
        async with (
            self._around(method, asked, context),
            contextlib.aclosing(self._until_stopping(respond())) as responses,
        ):
            async for response in responses:
                await _sent(context.write(response))

    def _caller_of(self, context: Context) -> Caller:
        return self._caller or caller_by_certificate(context.auth_context())

    def _take(self, caller: Caller) -> None:
        """Count one request of a client.

        Raises:
            TooManyCallsError: It sends too many.
        """
        if not allows_any_rate(caller):
            self._limit.take(caller.name, time.monotonic())

    @contextlib.asynccontextmanager
    async def _around(self, method: str, asked: Asked, context: Context) -> AsyncIterator[None]:
        """Let a call in or not, log it when it ends, and answer what goes wrong in it.

        gRPC frees a call once its task has ended, and asking its context for anything then is a segmentation
        fault: nothing but the task may use the context, and nothing may outlive the task that does.
        """
        began, client, outcome = time.monotonic(), context.peer(), "OK"
        caller = self._caller_of(context)
        try:
            caller.require(method)
            self._take(caller)
            yield
        except asyncio.CancelledError:
            outcome = "GONE"
            raise
        except grpc.aio.AbortError:
            outcome = "ABORTED"
            raise
        except Exception as error:
            answer = answer_of(error)
            outcome = code_pb2.Code.Name(answer.status.code)
            if answer.is_bug:
                _log.error("call_failed", exception=error, method=method)
            await _abort(context, answer.status)
            raise  # which `abort` has done
        finally:
            if is_mutating(method):
                audit(caller.name, method, asked, outcome)
            _log.debug(
                "call",
                method=method.rpartition(".")[2],
                outcome=outcome,
                ms=round((time.monotonic() - began) * 1000, 1),
                client=client,
            )

    async def _until_stopping(self, stream: Any) -> AsyncGenerator[object, None]:
        stopping = asyncio.create_task(self._stopping.wait(), name="api-stream-stop")
        waiting: asyncio.Future[object] | None = None
        try:
            while True:
                waiting = asyncio.ensure_future(anext(stream))
                await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done():
                    raise ControlError(
                        ControlErrorReason.SHUTTING_DOWN, "the gateway is shutting down: watch again later"
                    )
                try:
                    response = waiting.result()
                except StopAsyncIteration:
                    return
                yield response
        finally:
            stopping.cancel()
            if waiting is not None:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
            await stream.aclose()


def allows_any_rate(caller: Caller) -> bool:
    """Say whether a client is trusted with its own rate: who installs SAs does so as traffic demands."""
    return Role.DATAPATH in caller.roles


async def _abort(context: Context, status: status_pb2.Status) -> None:
    details = ((STATUS_DETAILS_KEY, status.SerializeToString()),)
    await _sent(context.abort(_CODES[status.code], status.message, details))


async def _sent(sending: Awaitable[None]) -> None:
    """Send something to a client that may be gone; then the call counts as cancelled, which it soon is.

    gRPC would log the failure as our mistake.
    """
    try:
        await sending
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None
