// The ONNX file on onnxruntime-web, for who has no C compiler.
const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

async function openEngine() {
  const ort = await import(`data:text/javascript;base64,${MODEL.runtime}`);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = bytesOf(MODEL.runtime_code).buffer;
  const session = await ort.InferenceSession.create(bytesOf(MODEL.code));
  const state = new Float32Array(MODEL.state_size);
  return {
    state,
    reset() {
      state.fill(0);
    },
    async step(block) {
      const given = {
        samples: new ort.Tensor("float32", block, [1, block.length]),
        state: new ort.Tensor("float32", state.slice(), [1, state.length]),
      };
      const { probabilities, next_state } = await session.run(given);
      state.set(next_state.data);
      return Array.from(probabilities.data);
    },
  };
}
