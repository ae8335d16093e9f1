"""The method put together: normal recordings in, then a score, a threshold and evidence for every new one."""

from nearfar.detector.detector import Detector, load

__all__ = ["Detector", "load"]
