"""CPU time between two readings: who has no part in a measurement is taken out of it."""

import os

from gateway.bench.cpu import CpuReading, cpu_between, process_cpu_s, read_cpu


def reading(busy_s: float, others_s: dict[int, float], gateway_s: float = 0.0) -> CpuReading:
    return CpuReading(busy_s=busy_s, stolen_s=0.0, groups_s={"gateway": gateway_s}, others_s=others_s)


def test_what_other_programs_used_is_not_the_gateways() -> None:
    use = cpu_between(
        reading(10.0, {1: 5.0, 2: 1.0}, gateway_s=2.0),
        reading(13.0, {1: 5.5, 2: 1.0, 3: 0.25}, gateway_s=3.0),
    )

    assert use.others_s == 0.75
    assert use.busy_s == 2.25
    assert use.groups_s == {"gateway": 1.0}


def test_no_less_is_used_than_by_the_processes_of_the_measurement() -> None:
    use = cpu_between(reading(10.0, {1: 5.0}, gateway_s=2.0), reading(10.5, {1: 5.5}, gateway_s=2.25))

    assert use.busy_s == 0.25


def test_a_program_that_ended_takes_nothing_back() -> None:
    use = cpu_between(reading(10.0, {7: 100.0}), reading(11.0, {}))

    assert (use.others_s, use.busy_s) == (0.0, 1.0)


def test_a_process_counts_with_its_group_and_not_with_the_others() -> None:
    found = read_cpu({"tests": (os.getpid(),)})

    assert found.groups_s["tests"] > 0
    assert os.getpid() not in found.others_s
    assert os.getppid() in found.others_s


def test_cpu_time_of_a_process_grows_with_its_work() -> None:
    before = process_cpu_s(os.getpid())
    sum(number * number for number in range(200_000))

    assert process_cpu_s(os.getpid()) > before
