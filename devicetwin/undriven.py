"""Devices that nothing serves, and why: what whoever starts mappers on this node says of the drivers that are wanted.

Where nobody says, a mapper that has the device and does not answer is what is wrong with it.  It is told to the cloud as what
is wrong with the whole device, and is over as soon as a mapper serves it."""

import logging
from collections.abc import Callable, Mapping

from devicetwin.assign import ANNOTATION
from devicetwin.known import Known
from devicetwin.notes import TWIN, Notes

log = logging.getLogger(__name__)

MAX_FAULTS = 256
MAX_TEXT = 256


class Undriven:
    """is_served: whether a mapper that answers has the device."""

    def __init__(self, known: Known, notes: Notes, is_served: Callable[[str], bool]) -> None:
        self._known = known
        self._notes = notes
        self._is_served = is_served
        self._faults: dict[str, str] = {}

    def take(self, faults: Mapping[str, str]) -> None:
        """All that is known to be wrong now.   faults: protocol -> why nothing serves it."""
        before = self._faults
        self._faults = {
            protocol: text[:MAX_TEXT] for protocol, text in list(faults.items())[:MAX_FAULTS] if text
        }
        for protocol in before.keys() | self._faults.keys():
            if before.get(protocol) == self._faults.get(protocol):
                continue
            if protocol in self._faults:
                log.warning("Nothing serves devices of %s: %s", protocol, self._faults[protocol])
            for id_ in self._known.devices:
                if self._known.protocol_of(id_) == protocol:
                    self._notes.add(id_, TWIN)

    def judge(self, id_: str) -> None:
        """The device is new or different: what was said before it came is wrong with it, too."""
        if self.fault(id_):
            self._notes.add(id_, TWIN)

    def fault(self, id_: str) -> str:
        """Why nothing serves the device; empty when something does, or nobody says."""
        device = self._known.devices.get(id_)
        if device is None or self._is_served(id_):
            return ""
        # one that is bound to a mapper that somebody else runs is not helped by a driver
        bound = device.metadata.annotations.get(ANNOTATION)
        text = "" if bound else self._faults.get(device.spec.protocol.protocol_name, "")
        if text:
            return f"no mapper runs it: {text}"
        mapper = self._known.owner.get(id_)
        return f"its mapper {mapper} does not answer" if mapper else ""

    def problems(self, id_: str, others: Mapping[str, str]) -> Mapping[str, str]:
        """What is wrong with a device, this included.   others: by property ("" for the whole)."""
        text = self.fault(id_)
        return {**others, "": text} if text else others
