// C as WebAssembly. What it takes of mathematics is JavaScript's.
const even = (x) => {
  const whole = Math.round(x);
  return whole - x === 0.5 && whole % 2 !== 0 ? whole - 1 : whole;
};
const erf = (x) => {
  // Abramowitz and Stegun, 7.1.26.
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const y = 1 - ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t * Math.exp(-x * x);
  return x < 0 ? -y : y;
};
const mathematics = {
  ceilf: Math.ceil, erff: erf, expf: Math.exp, fabsf: Math.abs, floorf: Math.floor, fmaxf: Math.max, fminf: Math.min,
  llrint: (x) => BigInt(even(x)), logf: Math.log, nearbyint: even, nearbyintf: even, powf: Math.pow,
  roundf: (x) => Math.sign(x) * Math.round(Math.abs(x)), sqrtf: Math.sqrt, tanhf: Math.tanh,
};

async function openEngine() {
  const bytes = Uint8Array.from(atob(MODEL.code), (c) => c.charCodeAt(0));
  const { instance } = await WebAssembly.instantiate(bytes, { env: mathematics });
  const { memory, samples_at, state_at, probabilities_at, step } = instance.exports;
  const view = (at, length) => new Float32Array(memory.buffer, at, length);
  const samples = view(samples_at(), MODEL.step_samples), state = view(state_at(), MODEL.state_size);
  const probabilities = view(probabilities_at(), MODEL.classes.length);
  return {
    state,
    reset() {
      state.fill(0);
    },
    async step(block) {
      samples.set(block);
      step();
      return Array.from(probabilities);
    },
  };
}
