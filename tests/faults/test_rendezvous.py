"""A port that is taken and an address where nobody is are told within the minute (T19)."""

import socket
import threading
import time

import pytest

from meduet_training.runtime.rendezvous import check_rendezvous
from napari_meduet.errors import InputError

HERE = "127.0.0.1"
NOBODY = "192.0.2.1"  # RFC 5737: an address that no machine has


@pytest.fixture
def taken():
    """A port on which another program listens."""
    with socket.create_server((HERE, 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def free(taken):
    with socket.create_server((HERE, 0)) as server:
        return server.getsockname()[1]


def test_a_free_port_is_a_meeting_point(free):
    check_rendezvous(HERE, free, rank=0, variables={})
    check_rendezvous(HERE, free, rank=0, variables={})  # and is left free


def test_a_port_in_use_is_told(taken):
    with pytest.raises(InputError, match=rf"Port {taken} of this machine is in use.* Set MASTER_PORT"):
        check_rendezvous(HERE, taken, rank=0, variables={})


def test_torchruns_own_store_is_no_port_in_use(taken):
    check_rendezvous(HERE, taken, rank=0, variables={"TORCHELASTIC_USE_AGENT_STORE": "True"})


def test_an_address_that_is_not_of_rank_0_is_told(free, monkeypatch):
    monkeypatch.setattr("meduet_training.runtime.rendezvous.PAUSE_S", 0.05)
    with pytest.raises(InputError, match=rf"MASTER_ADDR is {NOBODY}, but rank 0 runs on this machine"):
        check_rendezvous(NOBODY, free, rank=0, variables={})


@pytest.mark.parametrize("address", [HERE, NOBODY, "no-such-host.invalid"])
def test_an_address_where_nobody_answers_is_told_in_time(free, address):
    began = time.monotonic()
    with pytest.raises(InputError, match=rf"Rank 1 got no answer from {address}:{free} within 1 s"):
        check_rendezvous(address, free, rank=1, variables={}, timeout_s=1.0)
    assert time.monotonic() - began < 10


def test_rank_0_may_come_later(free):
    servers = []
    late = threading.Timer(0.3, lambda: servers.append(socket.create_server((HERE, free))))
    late.start()
    check_rendezvous(HERE, free, rank=1, variables={}, timeout_s=20.0)
    late.join()
    servers[0].close()
