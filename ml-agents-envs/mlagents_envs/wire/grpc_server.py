"""A gRPC server for one client and one call at a time, in the thread that uses it."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import time
from typing import Optional

from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.logging_util import get_logger
from mlagents_envs.wire.grpc_connection import GrpcServerConnection, Status
from mlagents_envs.wire.http2 import ProtocolError

logger = get_logger(__name__)

_TURNED_AWAY = "Another environment uses this port of the trainer."
_RECEIVE_SIZE = 2**18
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class _Peer:
    """Somebody who has connected."""

    def __init__(self, peer_socket: socket.socket):
        peer_socket.setblocking(False)
        peer_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = peer_socket
        self.connection = GrpcServerConnection()
        self.events = selectors.EVENT_READ
        self.is_connected = True


class GrpcServer:
    """Waits for messages of the first client that sends one, and answers them; all others are turned away.

    There are no threads behind it: what is sent while nobody waits stays with the operating system. Servers for many
    clients have threads for every call, which cost more than the call and compete with the one that trains.

    :param listener: a socket that listens; the server closes it.
    :ivar message: of the client, until it is answered; None while there is none.
    :ivar n_bytes: how many have come so far.
    """

    def __init__(self, listener: socket.socket):
        listener.setblocking(False)
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._client: Optional[_Peer] = None
        self._call = 0
        self._room = memoryview(bytearray(_RECEIVE_SIZE))
        self._has_given_up = False  # the client, on a call
        self.message: Optional[bytes] = None
        self.n_bytes = 0

    @property
    def has_client(self) -> bool:
        """Whether there ever was a message."""
        return self._client is not None

    @property
    def has_gone(self) -> bool:
        """Whether the client has hung up, or given up, or spoke nonsense."""
        return self._has_given_up or (self._client is not None and not self._client.is_connected)

    def await_message(self, timeout_s: float) -> bool:
        """Wait for a time at most; return whether there is a `message`, or the client has gone.

        Others who have connected are heard in that time, too.

        :raises UnityEnvironmentException: this process has too many files open for one more connection.
        """
        if self._is_closed:
            return True
        deadline_s = time.monotonic() + timeout_s
        if self._client is not None:
            self._take_requests(self._client)  # where an interrupt has kept them
        left_s = 0.0 if self._is_over else timeout_s
        while True:
            self._serve(left_s)
            left_s = deadline_s - time.monotonic()
            if self._is_over or left_s <= 0.0:
                return self._is_over

    @property
    def _is_closed(self) -> bool:
        return self._listener.fileno() < 0

    @property
    def _is_over(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.message is not None or self.has_gone

    def answer(self, reply: bytes) -> None:
        """Answer the `message`; where the client no longer waits for that, it has gone."""
        client = self._client
        if client is not None and client.is_connected:
            self._read(client)  # it may have hung up meanwhile
        self.message = None
        if client is None or self.has_gone or not client.connection.is_open(self._call):
            self._has_given_up = True
            return
        client.connection.answer(self._call, reply)
        self._write(client)

    def close(self, farewell: bytes, timeout_s: float) -> None:
        """Stop listening, answer a client that waits with a farewell, and end all connections; again, do nothing.

        :param timeout_s: how long the client may take to receive it and hang up.
        """
        if self._is_closed:
            return
        self._selector.unregister(self._listener)
        self._listener.close()
        client = self._client
        if client is not None:
            self._take_requests(client)
        try:
            if client is not None and client.is_connected:
                client.connection.answer(self._call, farewell)
                self._write(client)
                self._hang_up(client, timeout_s)
        finally:
            for key in [*self._selector.get_map().values()]:
                self._drop(key.data)
            self._selector.close()

    def _hang_up(self, client: _Peer, timeout_s: float) -> None:
        """Let the client receive everything: a socket that is closed with bytes unread takes back what it has sent."""
        deadline_s = time.monotonic() + timeout_s
        has_sent_all = False
        while client.is_connected and (left_s := deadline_s - time.monotonic()) > 0.0:
            if not has_sent_all and not client.connection.outgoing and not client.connection.is_sending:
                has_sent_all = True
                with contextlib.suppress(OSError):
                    client.socket.shutdown(socket.SHUT_WR)
            self._serve(left_s)

    def _serve(self, timeout_s: float) -> None:
        """Wait for something to happen, for a time at most, and do what it asks for."""
        for key, events in self._selector.select(timeout_s):
            if key.fileobj is self._listener:
                self._accept()
                continue
            if events & selectors.EVENT_READ:
                self._read(key.data)
            if events & selectors.EVENT_WRITE and key.data.is_connected:
                self._write(key.data)

    def _accept(self) -> None:
        try:
            peer = _Peer(self._listener.accept()[0])
        except OSError as error:
            if error.errno in _EXHAUSTED:  # it would be so for ever: whoever wants to connect stays there
                raise UnityEnvironmentException(
                    f"Nobody can connect to the trainer: {error.strerror}. Give it more (ulimit -n), or let fewer "
                    "environments run at a time."
                ) from None
            return  # it has hung up already
        self._selector.register(peer.socket, peer.events, peer)
        self._write(peer)

    def _read(self, peer: _Peer) -> None:
        """Take in what a peer has sent."""
        connection = peer.connection
        try:
            while size := peer.socket.recv_into(self._room):
                self.n_bytes += size
                connection.receive(self._room[:size])
                if size < len(self._room):
                    break
            else:
                self._drop(peer)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(peer)
        except ProtocolError as error:
            logger.warning(f"Somebody who connected to the trainer was disconnected: {error}.")
            self._drop(peer)
        self._take_requests(peer)
        if connection.outgoing and peer.is_connected:
            self._write(peer)

    def _take_requests(self, peer: _Peer) -> None:
        """Make what a peer has sent the `message`, or turn the peer away."""
        connection = peer.connection
        while connection.requests:
            request = connection.requests.popleft()
            if self._client is None:
                self._client = peer
            if peer is self._client and self.message is None:
                self._call, self.message = request
            else:
                connection.refuse(request.call, Status.FAILED_PRECONDITION, _TURNED_AWAY)

    def _write(self, peer: _Peer) -> None:
        """Send what a peer has room for."""
        outgoing = peer.connection.outgoing
        try:
            del outgoing[: peer.socket.send(outgoing)]
        except BlockingIOError:
            pass
        except OSError:  # it has hung up, or the farewell was all; what it has sent before that is still to be read
            outgoing.clear()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if outgoing else 0)
        if events != peer.events:
            peer.events = events
            self._selector.modify(peer.socket, events, peer)

    def _drop(self, peer: _Peer) -> None:
        """End a connection."""
        if peer.is_connected:
            peer.is_connected = False
            self._selector.unregister(peer.socket)
            peer.socket.close()
