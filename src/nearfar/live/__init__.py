"""The plant: streams of windows -> scores -> alarms, kept in a history and reported to other systems.

    Machine     a detector, its alarm, lamp, trend, watchdog and last minute of sound; one lock for all of them
    Plant       the machines, the recorder of each one's events, the calendar, the history, the sinks; scores windows
    Operator    what people do to events and models: acknowledge, shelve, verdict, add normals, set-point, undo
    Monitor     the sources: a thread and a queue for each, and a check every second
    Roster      machines that come, change and go meanwhile: by the API, by plant.toml, by a new model
    Channels    channels to people that come and go meanwhile
    Assembly    one of each, as `build_plant` makes them of a `PlantConfig`
    Service     an `Assembly` behind HTTP (`server`): access, limits, uploads, open pages, machines that are set up

Rooms: `sources` (sound -> windows), `rules` (windows -> states, without clock, thread and disk), `history` (what was,
on disk), `sinks` (messages -> other systems), `report`, `setup` (recordings -> a new machine), `server`, `static`.
"""
