"""A report that people forward: a day or a week of a plant from its history, or what a detector was fitted on.

gather.py      history -> `PlantReport`, detector -> `DetectorReport`
pages.py       a report as one HTML page without scripts, for the screen and for A4
workbook.py    a report as an Excel workbook
"""
