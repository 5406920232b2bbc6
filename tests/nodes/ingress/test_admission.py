"""Client classes by longest prefix, stable ids, and the token bucket."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from raydns.nodes.ingress.admission import NOBODY, Admission, ClassTable, Generations, pack_address, unpack_address
from raydns.schemas.config.access import AccessConfig


def access(*classes: tuple[str, list[str]], **rate: Any) -> AccessConfig:
    """A section with these classes."""
    made = [{"name": name, "prefixes": prefixes} for name, prefixes in classes]
    return AccessConfig.model_validate({"classes": made, "rate": rate})


def test_the_longest_prefix_decides() -> None:
    """The class of a source is that of its longest prefix, in whatever order classes stand."""
    table = ClassTable(
        access(("all", ["0.0.0.0/0", "::/0"]), ("net", ["10.0.0.0/8", "2001:db8::/32"]), ("host", ["10.1.2.3/32"]))
    )
    found = {
        text: table.find(pack_address(text)).name
        for text in ("192.0.2.1", "10.9.9.9", "10.1.2.3", "2001:db8::1", "2001:db9::")
    }
    assert found == {
        "192.0.2.1": "all",
        "10.9.9.9": "net",
        "10.1.2.3": "host",
        "2001:db8::1": "net",
        "2001:db9::": "all",
    }


def test_ipv4_mapped_sources_and_prefixes_are_ipv4() -> None:
    """An IPv4-mapped source meets IPv4 prefixes, a mapped prefix means IPv4, and ``::/0`` alone covers no IPv4."""
    table = ClassTable(access(("four", ["10.0.0.0/8"]), ("six", ["::/0"]), ("mapped", ["::ffff:192.0.2.0/120"])))
    assert table.find(pack_address("::ffff:10.0.0.1")).name == "four"
    assert table.find(pack_address("192.0.2.77")).name == "mapped"
    assert table.find(pack_address("198.51.100.1")) is NOBODY
    assert table.find(pack_address("::1")).name == "six"


def test_on_link_adds_the_prefixes_of_own_interfaces() -> None:
    """A class with ``on_link`` takes in the interfaces' prefixes; the others do not."""
    config = AccessConfig.model_validate(
        {
            "classes": [
                {"name": "near", "prefixes": ["127.0.0.0/8"], "on_link": True},
                {"name": "far", "prefixes": ["0.0.0.0/0"]},
            ]
        }
    )
    table = ClassTable(config, ["203.0.113.0/24"])
    assert table.find(pack_address("203.0.113.5")).name == "near"
    assert table.find(pack_address("203.0.114.5")).name == "far"


def test_ids_belong_to_names() -> None:
    """Classes that come, go or move leave every other id as it was, also in a table made from nothing."""
    first = ClassTable(access(("a", ["10.0.0.0/8"]), ("b", ["11.0.0.0/8"])))
    second = ClassTable(access(("c", ["12.0.0.0/8"]), ("b", ["11.0.0.0/8"])), previous=first)
    afresh = ClassTable(access(("b", ["11.0.0.0/8"])))
    assert first.ids["b"] == second.ids["b"] == afresh.ids["b"]
    assert second.ids["a"] == first.ids["a"]  # gone, and nobody else's
    assert len({*second.ids.values()}) == 3
    assert 0 not in second.ids.values()


@given(st.lists(st.tuples(st.ip_addresses(), st.integers(0, 128)), max_size=12), st.ip_addresses())
def test_longest_prefix_agrees_with_ipaddress(prefixes: list[tuple[Any, int]], source: Any) -> None:
    """For any prefixes and source the table finds what a search through all of them finds."""
    networks = [ipaddress.ip_network((a, min(n, a.max_prefixlen)), strict=False) for a, n in prefixes]
    networks = list(dict.fromkeys(networks))
    table = ClassTable(access(*((f"c{i}", [str(network)]) for i, network in enumerate(networks))))
    if source.version == 6 and source.ipv4_mapped:
        source = source.ipv4_mapped
    matching = [(n.prefixlen, f"c{i}") for i, n in enumerate(networks) if n.version == source.version and source in n]
    wanted = max(matching)[1] if matching else NOBODY.name
    mapped = [n for n in networks if n.version == 6 and n.prefixlen >= 96 and n.network_address.ipv4_mapped]
    if not mapped:
        assert table.find(pack_address(str(source))).name == wanted


@given(st.ip_addresses())
def test_addresses_survive_packing(address: Any) -> None:
    """Every address packs into 16 octets and back, but for the mapped form, which is IPv4."""
    text = unpack_address(pack_address(str(address)))
    assert text == str(address.ipv4_mapped if address.version == 6 and address.ipv4_mapped else address)


def test_tokens_run_out_and_come_back() -> None:
    """A client may send its burst at once and then its rate."""
    admission = Admission(access(("all", ["0.0.0.0/0"]), queries_per_second=10, burst=5))
    client = admission.client("192.0.2.1", 0.0)
    assert [admission.admits(client, 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert admission.admits(client, 0.1)
    assert not admission.admits(client, 0.1)
    assert [admission.admits(client, 100.0) for _ in range(6)] == [True] * 5 + [False]


def test_an_ipv6_64_is_one_client_and_an_ipv4_address_is_one() -> None:
    """Addresses of one /64 share a bucket; IPv4 neighbours do not."""
    admission = Admission(access(("all", ["0.0.0.0/0", "::/0"]), burst=1))
    buckets = [
        admission.client(text, 0.0).bucket
        for text in ("2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::", "192.0.2.1", "192.0.2.2")
    ]
    assert buckets[0] is buckets[1]
    assert len({id(bucket) for bucket in buckets}) == 4


def test_loopback_is_exempt_only_if_it_says_so() -> None:
    """``exempt_loopback`` decides about 127.0.0.0/8 and ::1."""
    for exempt in (True, False):
        admission = Admission(access(("all", ["0.0.0.0/0", "::/0"]), exempt_loopback=exempt))
        for host in ("127.0.0.1", "127.9.9.9", "::1"):
            assert (admission.client(host, 0.0).bucket is None) is exempt


def test_buckets_survive_a_reload() -> None:
    """A reload gives nobody a new burst."""
    config = access(("all", ["0.0.0.0/0"]), burst=1)
    before = Admission(config)
    assert before.admits(before.client("192.0.2.1", 0.0), 0.0)
    after = Admission(config, previous=before)
    assert not after.admits(after.client("192.0.2.1", 0.0), 0.0)


def test_tables_are_bounded() -> None:
    """A flood from a hundred thousand sources leaves at most ``clients_max`` of them behind."""
    admission = Admission(access(("all", ["0.0.0.0/0"]), clients_max=1024))
    for number in range(100_000):
        admission.client(str(ipaddress.IPv4Address(number)), 0.0)
    assert admission.clients <= 1024
    assert admission.buckets <= 1024


@given(st.lists(st.integers(0, 50), max_size=400), st.integers(2, 40))
def test_generations_keep_what_is_used(keys: list[int], size: int) -> None:
    """Never more than the bound, and the last half of distinct keys is always there."""
    table: Generations[int] = Generations(size)
    for key in keys:
        if table.get(key) is None:
            table.put(key, key + 1)
        assert len(table) <= size
    recent = list(dict.fromkeys(reversed(keys)))[: size // 2]
    assert all(table.get(key) == key + 1 for key in recent[:1])
