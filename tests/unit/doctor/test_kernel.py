"""Packet filters as they are asked for."""

from orchestrator.doctor.kernel import drop_rules


def test_packets_are_dropped_on_their_way_in_to_and_back_from_a_port():
    assert drop_rules(["127.0.0.1:50051"], 1.0) == [
        ("INPUT", "-i", "lo", "-p", "tcp", "--dport", "50051", "-j", "DROP"),
        ("INPUT", "-i", "lo", "-p", "tcp", "--sport", "50051", "-j", "DROP"),
    ]


def test_a_share_of_packets_is_left_to_chance():
    (rule, _) = drop_rules(["127.0.0.1:1"], 0.05)

    assert rule[7:] == ("-m", "statistic", "--mode", "random", "--probability", "0.05", "-j", "DROP")
