"""Names of devices as users write them."""

from __future__ import annotations

import logging

import pytest

from wsi_attention.errors import InputError
from wsi_attention.training.devices import fabric_on


def test_devices_that_are_not_there() -> None:
    with pytest.raises(InputError, match=r"no device 'tpu' here; found: cpu"):
        fabric_on("tpu", 1, "32")
    with pytest.raises(InputError, match="0 processes do not fit device 'cpu'"):
        fabric_on("cpu", 0, "32")


def test_the_fabric_is_quiet_and_where_it_should_be(capfd: pytest.CaptureFixture[str]) -> None:
    fabric = fabric_on("cpu", 1, "bf16")
    assert fabric.device.type == "cpu"
    assert fabric.world_size == 1
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("lightning.fabric").level == logging.WARNING
