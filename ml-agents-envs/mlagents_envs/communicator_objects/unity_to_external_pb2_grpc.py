"""The service of `unity_to_external.proto`: its client, its server's interface, and how the two get onto a channel."""

from __future__ import annotations

from typing import Any

import grpc

from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto

SERVICE = "communicator_objects.UnityToExternalProto"
METHOD = "Exchange"


class UnityToExternalProtoStub:
    """The environment's end: ``Exchange(message)`` sends what it has to say and returns what the trainer answers."""

    def __init__(self, channel: grpc.Channel):
        self.Exchange = channel.unary_unary(
            f"/{SERVICE}/{METHOD}",
            request_serializer=UnityMessageProto.SerializeToString,
            response_deserializer=UnityMessageProto.FromString,
        )


class UnityToExternalProtoServicer:
    """The trainer's end: a subclass answers what environments send."""

    def Exchange(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer an environment's message."""
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "This trainer does not answer.")


def add_UnityToExternalProtoServicer_to_server(servicer: UnityToExternalProtoServicer, server: grpc.Server) -> None:
    """Let `servicer` answer what arrives at `server`."""
    handler = grpc.unary_unary_rpc_method_handler(
        servicer.Exchange,
        request_deserializer=UnityMessageProto.FromString,
        response_serializer=UnityMessageProto.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
