// Advice on microphones, as docs/microphones.md gives it at length: which, where, how long, and what to do on an alarm.

import { h, panel, replaceContent, setTitle } from "./dom.js";

const TEXT = {
  title: "Microphones",
  where: "Where they go",
  whereHow: [
    "Near stands 20 to 50 cm from the part that wears: bearing, coupling, gearbox, valve. Not in the air stream, not on the floor.",
    "Far stands 2 to 5 m away, towards the room, where the neighbours are as loud as at near. What far hears is taken out of near.",
    "Screw both down and mark the places: a microphone that was moved is another microphone.",
    "One microphone works too, as near, if the neighbours are quiet.",
  ],
  right: "Near stands 20 to 50 cm from the machine, far 2 to 5 m away towards the room.",
  wrong: "Three places that do not work: side by side, in the air stream, far at another machine.",
  which: "Which",
  whichHow: [
    "Both on one sound card, as left and right of one recording. A USB sound card with two small omnidirectional microphones (100 to 300 in all) does for most machines; simple ones (up to 30 each) do for a first week.",
    "Without automatic gain, noise suppression or echo cancellation: switch them off in the settings of the system.",
    "16,000 samples a second or more, uncompressed; the loudest normal sound 10 to 20 dB below full scale.",
    "Dust, water or heat need microphones for industry; where explosions are possible, only certified ones are allowed.",
  ],
  long: "How long, and which days",
  longHow: [
    "Every way to run: each speed, each load, start and stop if they are part of the day.",
    "Days count more than minutes. Ten minutes on each of ten days are far better than a hundred on one.",
    "20 recordings of 10 s are enough to begin; 100 or more, over ten days, to rely on.",
    "After a repair or a new bearing, record again.",
  ],
  alarm: "When it alarms",
  alarmHow: [
    "Listen, and switch to the most similar normal recording.",
    "Look at the microphones: a cable is more frequent than a bearing.",
    "Go there, if it sounds wrong to you too.",
    "Answer: “It was fine” teaches that sound, “Real fault” keeps it out.",
  ],
  deaf: "What it cannot hear",
  deafHow: [
    "A fault that makes no sound where the microphone is, or is fainter than the room.",
    "A fault that was there when the normal recordings were made.",
    "How long a machine will still run. And it is no safety device: nothing that can hurt somebody may depend on it.",
  ],
};

export function show(main) {
  setTitle(TEXT.title);
  const list = (items) =>
    h(
      "ul",
      {},
      items.map((item) => h("li", {}, item)),
    );
  document.getElementById("live").hidden = true;
  const drawn = (name, alt) => h("figure", {}, h("img", { src: `/static/${name}.svg`, alt, width: 760 }));
  replaceContent(
    main,
    h("div", { class: "title" }, h("h1", {}, TEXT.title)),
    panel(
      "where",
      TEXT.where,
      drawn("microphones-right", TEXT.right),
      list(TEXT.whereHow),
      drawn("microphones-wrong", TEXT.wrong),
    ),
    panel("which", TEXT.which, list(TEXT.whichHow)),
    panel("long", TEXT.long, list(TEXT.longHow)),
    panel("on-alarm", TEXT.alarm, list(TEXT.alarmHow)),
    panel("deaf", TEXT.deaf, list(TEXT.deafHow)),
  );
}
