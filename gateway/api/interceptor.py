"""What happens around every call: errors become statuses, calls are logged, streams end at a shutdown.

Requests and responses are never logged: they carry keys.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
from google.rpc import code_pb2

from gateway.api.errors import STATUS_DETAILS_KEY, answer_of
from gateway.controller.facade import ControlError, ControlErrorReason
from gateway.observe.logs import get_logger

OUR_METHODS: Final = "/gateway.api."
"""Health and reflection bring their own handling."""

_END_STREAMS_S: Final = 1.0
"""A watcher that has not taken its last message by then is cut off."""

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}

_log = get_logger("api")

# Handlers are typed by what they carry, which differs from method to method.
Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every method of our services."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()
        self._streams: set[asyncio.Task[Any]] = set()

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
                handler.response_serializer,
            )
        return handler

    def _unary(self, method: str, behaviour: Any) -> Any:
        async def answer(request: object, context: Context) -> object:
            # Asked for now: once the call has ended, its context must not be touched any more.
            began, client = time.monotonic(), context.peer()
            try:
                response = await behaviour(request, context)
            except Exception as error:
                await _abort(method, context, error, began)
                raise
            _log_call(method, client, "OK", began)
            return response

        return answer

    def _stream(self, method: str, behaviour: Any) -> Any:
        async def answer(request: object, context: Context) -> AsyncIterator[object]:
            began, client = time.monotonic(), context.peer()
            task = asyncio.current_task()
            assert task is not None
            self._streams.add(task)
            task.add_done_callback(self._streams.discard)
            try:
                async for response in self._until_stopping(behaviour(request, context)):
                    yield response
            except Exception as error:
                await _abort(method, context, error, began)
                raise
            finally:
                _log_call(method, client, "END", began)

        return answer

    async def _until_stopping(self, stream: Any) -> AsyncIterator[object]:
        stopping = asyncio.create_task(self._stopping.wait(), name="api-stream-stop")
        waiting: asyncio.Task[object] | None = None
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
            if waiting is not None and not waiting.done():
                waiting.cancel()
                await asyncio.wait({waiting})
            await stream.aclose()


async def _abort(method: str, context: Context, error: Exception, began: float) -> None:
    if isinstance(error, grpc.aio.AbortError):
        return
    answer = answer_of(error)
    code = _CODES[answer.status.code]
    if answer.is_bug:
        _log.error("call_failed", exception=error, method=method)
    _log_call(method, context.peer(), code_pb2.Code.Name(answer.status.code), began)
    details = ((STATUS_DETAILS_KEY, answer.status.SerializeToString()),)
    await context.abort(code, answer.status.message, details)


def _log_call(method: str, client: str, outcome: str, began: float) -> None:
    _log.debug(
        "call",
        method=method.rpartition(".")[2],
        outcome=outcome,
        ms=round((time.monotonic() - began) * 1000, 1),
        client=client,
    )
