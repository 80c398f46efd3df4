"""Ports: free ones are found, kept ones stay, and a busy one is explained."""

import os
import socket

import pytest

from openclaw_web.local import ports


@pytest.fixture
def busy_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_port_that_somebody_listens_on_is_not_free(busy_port):
    assert not ports.is_free(busy_port)


def test_a_port_of_the_last_run_is_kept_while_it_is_free():
    kept = ports.free_port()

    assert ports.choose_ports(["postgres"], kept={"postgres": kept}) == {"postgres": kept}


def test_a_port_that_was_taken_meanwhile_is_replaced(busy_port):
    chosen = ports.choose_ports(["postgres"], kept={"postgres": busy_port})

    assert chosen["postgres"] != busy_port


def test_two_services_never_get_the_same_port():
    kept = ports.free_port()

    chosen = ports.choose_ports(["a", "b", "c"], kept={"a": kept, "b": kept, "c": kept})

    assert len(set(chosen.values())) == 3


def test_the_public_port_is_never_given_to_a_service():
    public = ports.free_port()

    assert ports.choose_ports(["a"], kept={"a": public}, never={public})["a"] != public


def test_the_busy_port_sentence_names_the_process_and_the_cure(busy_port):
    sentence = ports.busy_sentence(busy_port)

    assert sentence.startswith(f"Port {busy_port} is taken by ")
    assert f"(process {os.getpid()})" in sentence
    assert "PORT=" in sentence
    assert sentence.endswith("make run")
