// Runs beside the page's own thread: collects the samples of near and far and hands them over in pieces.

const SIZE = 2048;

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.clear();
  }

  clear() {
    this.parts = [new Float32Array(SIZE), new Float32Array(SIZE)];
    this.length = 0;
  }

  process([input]) {
    if (!input.length) return true;
    const size = input[0].length;
    this.parts.forEach((part, channel) => part.set(input[channel] || new Float32Array(size), this.length));
    this.length += size;
    if (this.length === SIZE) {
      this.port.postMessage(
        this.parts,
        this.parts.map((part) => part.buffer),
      );
      this.clear();
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
