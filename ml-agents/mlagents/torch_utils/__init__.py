"""Torch, and the device that tensors live on."""

from mlagents.torch_utils.torch import default_device, nn, set_torch_config, take_threads_for_images, torch

__all__ = ["default_device", "nn", "set_torch_config", "take_threads_for_images", "torch"]
