"""Named floats that both ends may set."""

import uuid
from typing import Dict, List, Optional

from mlagents_envs.side_channel.incoming_message import IncomingMessage
from mlagents_envs.side_channel.outgoing_message import OutgoingMessage
from mlagents_envs.side_channel.side_channel import SideChannel


class FloatPropertiesChannel(SideChannel):
    """Holds the value last set under each name, by this end or by the environment.

    :param channel_id: an id of one's own, where an environment has several such channels.
    """

    def __init__(self, channel_id: Optional[uuid.UUID] = None) -> None:
        super().__init__(uuid.UUID("60ccf7d0-4f7e-11ea-b238-784f4387d1f7") if channel_id is None else channel_id)
        self._properties: Dict[str, float] = {}

    def on_message_received(self, msg: IncomingMessage) -> None:
        """Take over a property that the environment set."""
        fields = msg.strict()
        key = fields.read_string()
        self._properties[key] = fields.read_float32()

    def set_property(self, key: str, value: float) -> None:
        """Set a property here and queue it for the environment."""
        msg = OutgoingMessage()
        msg.write_string(key)
        msg.write_float32(value)
        self._properties[key] = value
        self.queue_message_to_send(msg)

    def get_property(self, key: str) -> Optional[float]:
        """Return a property's value, None when it was never set."""
        return self._properties.get(key)

    def list_properties(self) -> List[str]:
        """Return the names of the properties."""
        return list(self._properties)

    def get_property_dict_copy(self) -> Dict[str, float]:
        """Return all properties; changing the result changes nothing here."""
        return dict(self._properties)
