"""The messages of the wire as the ``.proto`` files beside this module define them: a module ``NAME_pb2`` for each.

The classes are made at import from `descriptors.bin`, the files' descriptor set, so that they belong to whichever
version of protobuf is installed: generated code is refused by other versions than it was generated for.
"""
