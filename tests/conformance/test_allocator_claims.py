"""The checkable claims on L4Re's allocators and user factories, by number; kernel objects are with the IRQs.

What a program has alone and what the root of a run gives it are held to the same claims.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from l4re import Gate, MemAlloc, Proto, RegionMap
from l4re.errors import Err, L4Error, OutOfRange
from l4re.linux.memfd import PAGE_SIZE as PAGE
from l4re.moe import Services
from l4re.services.mem_alloc import MemoryFactory, RemoteMemAlloc
from l4re.testing import wait_until

QUOTA = 1 << 20
CONTINUOUS = MemAlloc.F.CONTINUOUS


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A factory of a run whose quota is a mebibyte."""
    with closing(Services(quota=QUOTA)) as services, services.factory() as gate:
        yield gate


@pytest.fixture(params=["local", "of a run"])
def mem(request: pytest.FixtureRequest) -> MemAlloc:
    return MemAlloc() if request.param == "local" else RemoteMemAlloc(request.getfixturevalue("gate"))


@pytest.fixture
def user_factory(gate: Gate) -> MemoryFactory:
    return MemoryFactory(gate)


def code_of(act: Callable[[], object]) -> int:
    with pytest.raises(L4Error) as error:
        act()
    return error.value.code


def test_claim_48_allocating_nothing_gives_erange(mem: MemAlloc) -> None:
    assert code_of(lambda: mem.alloc(0)) == Err.ERANGE
    assert code_of(lambda: mem.create(Proto.DATASPACE, 0)) == Err.ERANGE


def test_claim_49_a_negative_size_gives_erange(mem: MemAlloc) -> None:
    assert code_of(lambda: mem.alloc(-PAGE)) == Err.ERANGE
    assert code_of(lambda: mem.create(Proto.DATASPACE, -PAGE)) == Err.ERANGE


def test_claim_49_with_continuous_it_means_all_but_so_much_of_a_quota(user_factory: MemoryFactory) -> None:
    with user_factory.create(Proto.DATASPACE, -3 * PAGE, CONTINUOUS):
        assert user_factory.info()[1] == QUOTA - 3 * PAGE


def test_claim_50_one_byte_works_and_is_one_byte_for_the_region_map_here(mem: MemAlloc) -> None:
    with mem.alloc(1) as ds, RegionMap().attach(ds) as region:
        assert ds.info().size == 1
        assert region.mapped_size == PAGE
        with pytest.raises(OutOfRange):
            RegionMap().attach(ds, PAGE)


def test_claim_51_continuous_memory_that_is_not_there_gives_enomem_at_once(mem: MemAlloc) -> None:
    with mem.alloc(PAGE):
        before = mem.info().quota_used
        assert code_of(lambda: mem.alloc(1 << 50, flags=CONTINUOUS)) == Err.ENOMEM
        assert mem.info().quota_used == before


def test_claim_51_above_the_quota_is_enomem_where_the_machine_has_more(user_factory: MemoryFactory) -> None:
    with user_factory.create(Proto.DATASPACE, QUOTA - PAGE, CONTINUOUS):
        assert code_of(lambda: user_factory.create(Proto.DATASPACE, PAGE + 1, CONTINUOUS)) == Err.ENOMEM
        assert user_factory.info()[1] == QUOTA - PAGE


def test_claim_52_the_last_capability_gives_the_quota_back(gate: Gate) -> None:
    mem = RemoteMemAlloc(gate)
    first = mem.alloc(3 * PAGE)
    second = first.dup()
    first.close()
    assert mem.info().quota_used == 3 * PAGE
    second.close()
    wait_until(lambda: mem.info().quota_used == 0, 20)


def test_claim_53_an_allocator_makes_nothing_of_an_unknown_protocol(mem: MemAlloc, user_factory: MemoryFactory) -> None:
    assert code_of(lambda: mem.create(0x7777)) == Err.ENODEV
    assert code_of(lambda: user_factory.create(0x7777)) == Err.ENODEV


def test_claim_54_the_quota_of_a_factory_is_above_zero_and_there(user_factory: MemoryFactory) -> None:
    for quota in (0, -1, -(1 << 63)):
        assert code_of(lambda quota=quota: user_factory.create(Proto.FACTORY, quota)) == Err.EINVAL  # type: ignore[misc]
    with user_factory.create(Proto.DATASPACE, PAGE):
        assert code_of(lambda: user_factory.create(Proto.FACTORY, QUOTA)) == Err.ENOMEM
        user_factory.create(Proto.FACTORY, QUOTA - PAGE).close()


def test_claim_55_memory_outlives_the_factory_it_was_made_by_and_stays_charged_here(
    user_factory: MemoryFactory,
) -> None:
    inner = user_factory.create(Proto.FACTORY, QUOTA // 2)
    assert isinstance(inner, Gate)
    with RemoteMemAlloc(inner).alloc(PAGE) as ds:
        inner.close()
        wait_until(lambda: user_factory.info()[1] == PAGE, 20)
        ds.write(0, b"still there")
    wait_until(lambda: user_factory.info()[1] == 0, 20)
