// The microphones of this browser: levels, and recordings as WAV files. Near is the first channel, far the second.

import { at } from "./dom.js";
import { known, t } from "./texts.js";

export const NONE = "none"; // there is no far microphone
export const RIGHT = "right"; // it is the right channel of near's device
const LEVEL_S = 0.25;
const SILENT_DB = -120;
const BEGIN_MS = 2000; // after which a microphone without any sample is taken as it says it is

// Whether this page may ask for a microphone: browsers allow it to this computer's own pages and to https only.
export const allowed = () => Boolean(navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode);

// Keeps this page open while it listens: links open beside it, and closing it is asked about. Returns what ends that.
export function stayOpen() {
  const asked = (event) => event.preventDefault();
  const beside = (event) => {
    const link = event.target.closest?.("a[href]:not([target], [download])");
    if (!link) return;
    link.target = "_blank";
    setTimeout(() => link.removeAttribute("target"));
  };
  window.addEventListener("beforeunload", asked);
  document.addEventListener("click", beside, true);
  return () => {
    window.removeEventListener("beforeunload", asked);
    document.removeEventListener("click", beside, true);
  };
}

// The microphones as [{ id, label }]; labels are there once one was used.
export async function microphones() {
  const found = await navigator.mediaDevices.enumerateDevices();
  return found.filter((d) => d.kind === "audioinput").map((d) => ({ id: d.deviceId, label: d.label }));
}

function stream(id) {
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const device = id ? { deviceId: { exact: id } } : {};
  const audio = { ...device, ...plain, channelCount: { ideal: 2 } };
  return navigator.mediaDevices.getUserMedia({ audio }).catch((error) => {
    const key = `microphone.${error.name}`;
    throw new Error(known(key) ? t(key) : error.message);
  });
}

// Opens near and far; far is a device, NONE or RIGHT. `onLevels([near, far])` gets levels in dB of full scale.
export async function openMicrophone({ near = "", far = RIGHT, onLevels = () => {}, onEnd = () => {} } = {}) {
  const streams = [await stream(near)];
  if (far !== NONE && far !== RIGHT) streams.push(await stream(far));
  const context = new AudioContext();
  await context.audioWorklet.addModule(at("/static/js/recorder.js"));
  const given = streams[0].getAudioTracks()[0].getSettings().channelCount; // which not every browser tells
  let channels = streams.length === 2 ? 2 : far === NONE ? 1 : Math.min(2, given ?? 2);
  const node = new AudioWorkletNode(context, "recorder", {
    numberOfOutputs: 0,
    channelCount: 2,
    channelCountMode: "explicit",
    channelInterpretation: "discrete",
  });
  const sources = streams.map((each) => context.createMediaStreamSource(each));
  if (sources.length === 2) {
    const merger = context.createChannelMerger(2);
    sources.forEach((source, i) => {
      const splitter = context.createChannelSplitter(2);
      source.connect(splitter).connect(merger, 0, i);
    });
    merger.connect(node);
  } else sources[0].connect(node);

  const wanted = []; // recordings under way: { parts, left, done }
  const sums = { power: [0, 0], samples: 0 };
  let heard = () => {};
  const begun = new Promise((done) => {
    heard = done;
    setTimeout(done, BEGIN_MS);
  });
  node.port.onmessage = ({ data }) => {
    const blocks = data.slice(0, channels);
    blocks.forEach((block, i) => {
      sums.power[i] += block.reduce((sum, x) => sum + x * x, 0);
    });
    sums.samples += blocks[0].length;
    if (sums.samples >= LEVEL_S * context.sampleRate) {
      if (given === undefined && streams.length === 1 && sums.power[0] && !sums.power[1]) channels = 1;
      heard();
      onLevels(blocks.map((_, i) => Math.max(SILENT_DB, 10 * Math.log10(sums.power[i] / sums.samples || 1e-12))));
      sums.power = [0, 0];
      sums.samples = 0;
    }
    for (const each of [...wanted]) {
      each.parts.push(blocks);
      each.left -= blocks[0].length;
      if (each.left <= 0) {
        wanted.splice(wanted.indexOf(each), 1);
        each.done(wavFile(each.parts, channels, each.samples, context.sampleRate));
      }
    }
  };
  let open = true;
  const close = () => {
    if (!open) return;
    open = false;
    for (const each of streams) for (const track of each.getTracks()) track.stop();
    context.close();
    for (const each of wanted) each.failed(new Error(t("microphone.closed")));
  };
  for (const each of streams)
    each.getAudioTracks()[0].addEventListener("ended", () => {
      close();
      onEnd();
    });
  await Promise.race([context.resume(), new Promise((done) => setTimeout(done, BEGIN_MS))]);
  if (context.state !== "running") {
    close();
    throw new Error(t("microphone.mute"));
  }
  await begun;
  return {
    channels,
    close,
    // A recording of so many seconds from now on, as a Blob.
    record: (seconds) =>
      new Promise((done, failed) => {
        const samples = Math.round(seconds * context.sampleRate);
        wanted.push({ parts: [], left: samples, samples, done, failed });
      }),
  };
}

// A WAV file of 32-bit floats.
function wavFile(parts, channels, samples, rate) {
  const data = new ArrayBuffer(44 + 4 * channels * samples);
  const view = new DataView(data);
  const text = (place, letters) => [...letters].forEach((c, i) => view.setUint8(place + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 4 * channels * samples, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 3, true); // floats
  view.setUint16(22, channels, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 4 * rate * channels, true);
  view.setUint16(32, 4 * channels, true);
  view.setUint16(34, 32, true);
  text(36, "data");
  view.setUint32(40, 4 * channels * samples, true);
  const out = new Float32Array(data, 44);
  let at = 0;
  for (const blocks of parts)
    for (let i = 0; i < blocks[0].length && at < channels * samples; i++)
      for (let c = 0; c < channels; c++) out[at++] = blocks[c][i];
  return new Blob([data], { type: "audio/wav" });
}
