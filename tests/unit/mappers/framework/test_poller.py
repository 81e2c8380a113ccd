"""One device under virtual time."""

import asyncio
import logging
import random
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive.errors import SkerryError
from mappers.framework.driver import Driver, DriverError, Property, Settings, Value
from mappers.framework.errors import DeviceError
from mappers.framework.poller import MAX_HANGING, Poller, Sample, take_due
from mappers.framework.spec import DeviceSpec
from tests.support import virtualtime


class Fake(Driver):
    """A device in memory; what it does is in `script`."""

    protocol = "fake"
    instances: list["Fake"] = []

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.values: dict[str, Value] = {"a": 1, "b": 2}
        self.fail: Exception | None = None
        self.fail_on: str | None = None
        self.said = "online"
        Fake.instances.append(self)

    async def open(self) -> None:
        self.log.append("open")
        if Fake.refuse_open:
            raise OSError("no route")

    refuse_open = False

    async def close(self) -> None:
        self.log.append("close")

    async def read(self, prop: Property) -> Value:
        if self.fail is not None and self.fail_on in (None, prop.name):
            raise self.fail
        return self.values[prop.name]

    async def write(self, prop: Property, value: Value) -> None:
        self.log.append((prop.name, value))
        self.values[prop.name] = value

    async def state(self) -> str:
        return self.said


class Reports:
    def __init__(self) -> None:
        self.samples: list[tuple[float, Sample]] = []
        self.states: list[str] = []

    def readings(self, id_: str, samples: list[Sample]) -> None:
        now = asyncio.get_running_loop().time()
        self.samples += [(now, s) for s in samples]

    def state(self, id_: str, state: str) -> None:
        self.states.append(state)

    def values(self, name: str) -> list[str]:
        return [s.value for _, s in self.samples if s.name == name]


def spec(
    desired: str = "", *, cycle_s: float = 1.0, settings: dict[str, Any] | None = None, state_s: float = 0.0
) -> DeviceSpec:
    return DeviceSpec(
        id="n/d",
        settings=Settings(settings or {}),
        properties={
            "a": Property(name="a", type="INT", writable=True, desired=desired, cycle_s=cycle_s),
            "b": Property(name="b", type="INT", cycle_s=cycle_s),
        },
        state_cycle_s=state_s,
        methods={"set": ("a",)},
    )


def play(
    scenario: Callable[[Poller, Reports], Awaitable[None]], first: DeviceSpec, make: Any = Fake
) -> Reports:
    """Run a poller beside a scenario, in no time at all."""
    Fake.instances.clear()
    Fake.refuse_open = False
    reports = Reports()

    async def main() -> None:
        poller = Poller(make, first, reports, rng=random.Random(1))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(poller.run())
            try:
                await scenario(poller, reports)
            finally:
                task.cancel()

    virtualtime.run(main())
    return reports


def test_it_reads_at_once_and_then_in_its_cycle() -> None:
    async def scenario(poller: Poller, reports: Reports) -> None:
        await asyncio.sleep(10.5)

    reports = play(scenario, spec())
    assert reports.samples[0][0] < 0.1
    assert 10 <= len(reports.values("a")) <= 12
    assert [x for x in Fake.instances[0].log if x in ("open", "close")] == ["open", "close"]


def test_a_wish_is_written_first_and_a_new_one_at_once_without_reopening() -> None:
    async def scenario(poller: Poller, reports: Reports) -> None:
        await asyncio.sleep(0.5)
        assert reports.samples[0][1] == Sample(name="a", type="INT", value="7", desired="7")
        poller.update(spec("9", cycle_s=100))
        before = asyncio.get_running_loop().time()
        await asyncio.sleep(0.01)
        assert reports.samples[-2][1].value == "9"
        assert reports.samples[-2][0] - before < 0.01

    play(scenario, spec("7", cycle_s=100))
    (fake,) = Fake.instances
    assert fake.log == ["open", ("a", 7), ("a", 9), "close"]


def test_an_equal_spec_does_nothing() -> None:
    async def scenario(poller: Poller, reports: Reports) -> None:
        await asyncio.sleep(0.5)
        poller.update(spec("7"))
        await asyncio.sleep(0.5)

    play(scenario, spec("7"))
    assert Fake.instances[0].log == ["open", ("a", 7), "close"]


def test_other_settings_reopen_the_device() -> None:
    async def scenario(poller: Poller, reports: Reports) -> None:
        await asyncio.sleep(0.5)
        poller.update(spec("7", settings={"port": 5}))
        await asyncio.sleep(0.5)

    play(scenario, spec("7"))
    assert [f.log for f in Fake.instances] == [["open", ("a", 7), "close"], ["open", ("a", 7), "close"]]
    assert Fake.instances[1].settings["port"] == 5


def test_a_lost_device_is_one_line_and_back_another(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario(poller: Poller, reports: Reports) -> None:
        await asyncio.sleep(2)
        Fake.refuse_open = True
        Fake.instances[-1].fail = OSError("unplugged")
        await asyncio.sleep(300)
        assert reports.states[-1] == "offline"
        tries = len(Fake.instances)
        assert 8 < tries < 40  # growing pauses
        Fake.refuse_open = False
        await asyncio.sleep(60)
        assert reports.states[-1] == "online"
        assert Fake.instances[-1].log[:2] == ["open", ("a", 7)]  # what is wanted is written again

    play(scenario, spec("7", state_s=5))
    lines = [r.message for r in caplog.records]
    assert len([t for t in lines if "does not answer" in t]) == 1
    assert len([t for t in lines if "is back" in t]) == 1


def test_one_bad_property_does_not_take_the_others_with_it() -> None:
    async def scenario(poller: Poller, reports: Reports) -> None:
        await asyncio.sleep(0.5)
        Fake.instances[0].fail, Fake.instances[0].fail_on = DriverError("no register"), "b"
        await asyncio.sleep(5)
        Fake.instances[0].values["a"] = float("nan")  # and a value that is no value is not reported either
        Fake.instances[0].fail = None
        await asyncio.sleep(5)

    reports = play(scenario, spec())
    assert len(Fake.instances) == 1
    assert len(reports.values("a")) in range(4, 8)
    assert "nan" not in reports.values("a")
    assert len(reports.values("b")) in range(4, 9)


def test_state_is_told_in_its_cycle() -> None:
    async def scenario(poller: Poller, reports: Reports) -> None:
        await asyncio.sleep(21)

    assert 4 <= len(play(scenario, spec(state_s=5)).states) <= 6


def test_a_hanging_read_times_out_and_is_a_loss() -> None:
    class Hangs(Fake):
        async def read(self, prop: Property) -> Value:
            await asyncio.sleep(1e6)
            return 1

    async def scenario(poller: Poller, reports: Reports) -> None:
        await asyncio.sleep(30)
        assert reports.states == ["offline"]

    play(scenario, spec(), Hangs)


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_timeout_of_the_driver_s_own_is_told_as_it_is_and_its_thread_stays(kind: str) -> None:
    """`socket.timeout` is a TimeoutError, too; the call returned, so nothing hangs, and what the driver said is the reason."""
    threads: set[str | int] = set()

    class Plain(Fake):
        def read(self, prop: Property) -> Value:  # type: ignore[override]
            threads.add(threading.get_ident())
            raise TimeoutError("the meter says nothing")

    class Async(Fake):
        async def read(self, prop: Property) -> Value:
            threads.add(threading.get_ident())
            raise TimeoutError("the meter says nothing")

    make = Plain if kind == "plain" else Async

    async def story() -> None:
        poller = Poller(make, spec(), Reports(), rng=random.Random(1), call_timeout_s=60)
        driver, prop = make(), next(iter(poller.spec.properties.values()))
        for _ in range(MAX_HANGING + 2):
            with pytest.raises(TimeoutError, match="the meter says nothing"):
                await poller._do(driver.read, prop)

    asyncio.run(story())
    assert len(threads) == 1


def test_a_loss_without_words_is_logged_by_its_kind(caplog: pytest.LogCaptureFixture) -> None:
    class Mute(Fake):
        async def read(self, prop: Property) -> Value:
            raise ConnectionResetError

    async def scenario(poller: Poller, reports: Reports) -> None:
        await asyncio.sleep(5)

    with caplog.at_level(logging.WARNING):
        play(scenario, spec(), Mute)
    assert "does not answer: ConnectionResetError" in caplog.text


def test_methods_are_called_and_others_refused() -> None:
    async def scenario(poller: Poller, reports: Reports) -> None:
        await asyncio.sleep(0.1)
        assert await poller.call("set", {"a": "5"}) == ""
        for method, prop, text in (("set", "b", "5"), ("odd", "a", "5"), ("set", "a", "x")):
            with pytest.raises(SkerryError):
                await poller.call(method, {prop: text})

    play(scenario, spec())
    assert ("a", 5) in Fake.instances[0].log


def test_what_a_device_sends_by_itself_is_reported() -> None:
    async def scenario(poller: Poller, reports: Reports) -> None:
        await asyncio.sleep(0.1)
        Fake.instances[0].changed("a", 77)
        Fake.instances[0].changed("a", "x")
        Fake.instances[0].changed("nope", 1)
        assert reports.values("a")[-1] == "77"

    play(scenario, spec(cycle_s=1000))


def test_plain_functions_run_in_a_thread_of_the_device() -> None:
    """Real time: a blocking driver does not hold up the loop."""
    threads: set[int] = set()

    class Blocking(Driver):
        protocol = "b"

        def open(self) -> None:  # type: ignore[override]
            threads.add(threading.get_ident())

        def read(self, prop: Property) -> Value:  # type: ignore[override]
            threads.add(threading.get_ident())
            time.sleep(0.05)
            return 1

    async def main() -> None:
        reports = Reports()
        poller = Poller(Blocking, spec(), reports, rng=random.Random(1))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(poller.run())
            beats = 0
            while not reports.samples:
                await asyncio.sleep(0.005)
                beats += 1
            task.cancel()
        assert beats > 5

    asyncio.run(main())
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@given(st.dictionaries(st.sampled_from("abc"), st.floats(0, 10), min_size=1), st.floats(0, 10))
def test_what_is_due_moves_on_by_about_a_cycle(due: dict[str, float], now: float) -> None:
    properties = {n: Property(name=n, cycle_s=2.0) for n in "abc"}
    before = dict(due)
    ready = take_due(due, properties, now, random.Random(0))
    assert {p.name for p in ready} == {n for n, at in before.items() if at <= now}
    for prop in ready:
        assert 1.8 < due[prop.name] - now < 2.2


def test_devices_that_were_opened_together_are_not_read_together_ever_after() -> None:
    """Three hundred that are read in one instant hold up what somebody wishes of one of them."""
    rng, second = random.Random(0), []
    for _ in range(300):
        due = {"a": 5.0}
        take_due(due, {"a": Property(name="a", cycle_s=2.0)}, 5.0, rng, first=True)
        second.append(due["a"] - 5.0)
    assert min(second) >= 0
    assert max(second) <= 2.0
    busiest = max(sum(at <= s < at + 0.2 for s in second) for at in (0.2 * i for i in range(10)))
    assert busiest < 60  # a tenth of a cycle has 30 on average


def test_calls_that_never_return_cost_a_bounded_number_of_threads() -> None:
    """A serial port without a timeout, on a board that nobody visits: a thread a try would end the whole mapper in days."""
    held, asked = threading.Event(), []

    class Hanging(Fake):
        def read(self, prop: Property) -> Value:  # type: ignore[override]
            asked.append(prop.name)
            assert held.wait(60)
            return 5

    async def story() -> None:
        poller = Poller(Hanging, spec(), Reports(), rng=random.Random(1), call_timeout_s=0.01)
        driver, prop = Hanging(), next(iter(poller.spec.properties.values()))
        before = threading.active_count()
        refused = 0
        async with asyncio.timeout(60):
            # on a busy machine a call may be given up before its thread has begun, and then holds none
            while refused < 20:
                with pytest.raises(DeviceError, match=r"did not return|have not returned") as told:
                    await poller._do(driver.read, prop)
                refused += "have not returned" in str(told.value)
        assert threading.active_count() - before <= MAX_HANGING
        assert len(asked) <= MAX_HANGING
        held.set()
        async with asyncio.timeout(60):
            while True:
                try:
                    assert await poller._do(driver.read, prop) == 5
                except DeviceError:
                    await asyncio.sleep(0.01)
                else:
                    break

    asyncio.run(story())


def test_a_driver_that_hangs_does_not_keep_its_process_from_ending() -> None:
    """Else systemd would wait for a mapper of which a part has failed, and never start it again."""
    program = (
        "import asyncio, threading\n"
        "from mappers.framework.caller import Caller\n"
        "async def main():\n"
        "    caller = Caller('hangs')\n"
        "    try:\n"
        "        await asyncio.wait_for(asyncio.wrap_future(caller.call(threading.Event().wait)), 0.01)\n"
        "    except TimeoutError:\n"
        "        caller.leave()\n"
        "asyncio.run(main())\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


class Judging(Fake):
    asked = 0
    hangs = False

    async def anomaly(self, prop: Property, value: Value) -> str | None:
        Judging.asked += 1
        if self.hangs:
            await asyncio.sleep(1000)
        if value == 13:
            raise RuntimeError("no idea")
        limit = prop.anomaly.number("limit")
        return f"{value} is odd" if isinstance(value, int) and value > limit else None


def judged_spec() -> DeviceSpec:
    plain = spec()
    properties = {
        "a": Property(name="a", type="INT", anomaly=Settings({"limit": "5"})),
        "b": plain.properties["b"],  # without settings the driver is not asked
    }
    return DeviceSpec(id="n/d", settings=plain.settings, properties=properties)


def test_a_driver_judges_readings() -> None:
    async def scenario(poller: Poller, reports: Reports) -> None:
        await asyncio.sleep(0.5)
        Fake.instances[0].values["a"] = Fake.instances[0].values["b"] = 7
        await asyncio.sleep(1)

    reports = play(scenario, judged_spec(), Judging)
    found = {(s.name, s.value, s.anomaly) for _, s in reports.samples}
    assert found == {("a", "1", ""), ("b", "2", ""), ("a", "7", "7 is odd"), ("b", "7", "")}


def test_a_judge_that_fails_or_hangs_is_given_up_and_the_readings_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for hangs, value in ((False, 13), (True, 7)):
        Judging.asked, Judging.hangs = 0, hangs
        caplog.clear()

        async def scenario(poller: Poller, reports: Reports, value: int = value) -> None:
            await asyncio.sleep(0.01)
            Fake.instances[0].values["a"] = value
            await asyncio.sleep(60)

        reports = play(scenario, judged_spec(), Judging)
        assert Judging.asked <= 4
        assert len([v for v in reports.values("a") if v == str(value)]) > 20
        assert "it is not asked again" in caplog.text
    Judging.hangs = False


class ReadOnly(Driver):
    protocol = "readonly"

    async def read(self, prop: Property) -> Value:
        return 4


def test_a_wish_that_the_driver_cannot_write_leaves_the_readings(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(poller: Poller, reports: Reports) -> None:
        await asyncio.sleep(5.5)

    reports = play(scenario, spec("7"), ReadOnly)
    assert len(reports.values("a")) > 4
    assert "offline" not in reports.states
    assert caplog.text.count("ReadOnly cannot write") == 1


def test_a_property_that_goes_while_it_is_read_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A changed model: its reading is of nobody's any more."""

    class Slow(Fake):
        async def read(self, prop: Property) -> Value:
            await asyncio.sleep(0.5)
            return await super().read(prop)

    without = replace(spec(), properties={"a": spec().properties["a"]})

    async def scenario(poller: Poller, reports: Reports) -> None:
        await asyncio.sleep(0.7)  # b is being read
        poller.update(without)
        await asyncio.sleep(5)

    reports = play(scenario, spec(), Slow)
    assert reports.values("a")
    assert not reports.values("b")
    assert "unknown" not in reports.states
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_driver_sees_the_bounds_of_a_changed_model_without_being_opened_again() -> None:
    async def scenario(poller: Poller, reports: Reports) -> None:
        await asyncio.sleep(0.5)
        (driver,) = Fake.instances
        bounded = {n: replace(p, maximum="9") for n, p in spec().properties.items()}
        poller.update(replace(spec(), properties=bounded))
        await asyncio.sleep(2)
        assert driver.properties["a"].maximum == "9"
        assert driver.log == ["open"]

    play(scenario, spec())
