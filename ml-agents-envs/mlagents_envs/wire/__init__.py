"""The exchanges between trainer and environment, from bytes to columns and back; see ``docs/unity.md``.

`messages` and `steps_decoder` are the trainer's end, `trainer_messages` and `steps_encoder` the environment's.
"""
