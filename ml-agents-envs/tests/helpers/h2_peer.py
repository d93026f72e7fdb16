"""An end of h2's to test ours against: it is strict about every frame."""

import h2.config
import h2.connection
import h2.settings
import numpy as np
from hypothesis import strategies

PIECES = {
    "sizes": strategies.lists(
        strategies.tuples(*2 * [strategies.integers(0, 200) | strategies.integers(0, 100_000)]), max_size=4
    ),
    "chunk": strategies.integers(7, 70_000),
    "window": strategies.integers(1, 3) | strategies.integers(5_000, 2**31 - 1),
    "frame_size": strategies.integers(2**14, 2**24 - 1),
}
"""Messages there and back by their sizes, and how they may be cut."""


def framed(message, compressed=0):
    """Return a message as gRPC has it on the wire."""
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


def of_size(size, seed=0):
    """Return a message of so many bytes."""
    return np.random.default_rng(seed).bytes(size)


class Peer:
    """An end of h2's, and ours, which gets all that the other sends, in pieces of `chunk` bytes."""

    def __init__(self, ours, chunk, is_client, **own_settings):
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=is_client))
        self.ours = ours
        self.chunk = chunk
        self.sent = bytearray()
        wanted = {getattr(h2.settings.SettingCodes, name): value for name, value in own_settings.items()}
        self.h2.local_settings = h2.settings.Settings(client=is_client, initial_values={0x2: 0, **wanted})
        self.h2.max_inbound_frame_size = self.h2.local_settings.max_frame_size
        self.h2.initiate_connection()
        self.talk()

    def talk(self):
        """Give each end what the other has sent, until both are silent."""
        while (data := self.h2.data_to_send()) or self.ours.outgoing:
            self.sent += data
            for start in range(0, len(data), self.chunk):
                self.ours.receive(data[start : start + self.chunk])
            answer = bytes(self.ours.outgoing)
            self.ours.outgoing.clear()
            for event in self.h2.receive_data(answer):
                self.note(event)

    def note(self, event):
        """Keep what our end has said."""
        raise NotImplementedError
