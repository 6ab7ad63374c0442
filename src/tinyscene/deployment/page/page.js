const $ = (id) => document.getElementById(id);
const pretty = (name) => name.replaceAll("_", " ");
const percent = (share) => `${Math.round(100 * share)} %`;
const UNSURE = MODEL.unsure, SECONDS_SHOWN = 60, LEAST = 1e-6;
const stepSeconds = MODEL.step_samples / MODEL.sample_rate, KEPT = 2 * Math.ceil(SECONDS_SHOWN / stepSeconds);
// Steps until a clip is full: decisions begin there, as those of `tinyscene run --stream`.
const FULL = Math.ceil(MODEL.clip_samples / MODEL.step_samples);

let engine, source = null, running = 0;
// Of every full clip its probabilities; of the microphone only the last minutes are kept.
let history = [], steps = 0, logs = null, spent = [], quiet = 0;

const rows = MODEL.classes.map((name) => {
  const row = document.createElement("div");
  row.className = "row";
  row.setAttribute("role", "listitem");
  row.innerHTML = '<span class="name"></span><span class="share">–</span><canvas aria-hidden="true"></canvas>';
  row.firstChild.textContent = pretty(name);
  row.firstChild.title = pretty(name);
  $("classes").append(row);
  return { row, share: row.children[1], canvas: row.lastChild };
});

function say(problem) {
  $("problem").textContent = problem;
  $("problem").hidden = !problem;
}

// As `tinyscene run --stream` smooths: an exponential mean of the logarithms.
function smoothed(probabilities) {
  const now = probabilities.map((p) => Math.log(Math.max(p, LEAST)));
  const a = 1 - Math.exp(-stepSeconds / MODEL.smooth_s);
  logs = logs ? logs.map((old, i) => old + a * (now[i] - old)) : now;
  const most = Math.max(...logs), powers = logs.map((one) => Math.exp(one - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((one) => one / sum);
}

function start() {
  engine.reset();
  history = [];
  steps = 0;
  logs = null;
  spent = [];
  quiet = 0;
  say("");
  return ++running;
}

async function hear(block) {
  const began = performance.now();
  const alone = await engine.step(block);
  spent.push(performance.now() - began);
  if (++steps >= FULL) history.push({ alone, smoothed: smoothed(alone) });
  if (source === "microphone" && history.length > KEPT) history = history.slice(-KEPT / 2);
  spent = spent.slice(-KEPT);
  quiet = block.some((x) => Math.abs(x) > 1e-4) ? 0 : quiet + 1;
}

function decide() {
  if (!history.length) return;
  const heard = steps * stepSeconds;
  const shares = history.at(-1).smoothed;
  const order = shares.map((_, i) => i).sort((a, b) => shares[b] - shares[a]);
  const [best, next] = order;
  const sure = shares[best] >= UNSURE;
  $("now").dataset.state = sure ? "sure" : "unsure";
  const text = sure ? pretty(MODEL.classes[best]) : `Not sure: ${pretty(MODEL.classes[best])} or ${pretty(MODEL.classes[next])}?`;
  if ($("scene").textContent !== text) $("scene").textContent = text;
  const time = source === "microphone" ? "" : `at ${clock(heard)}, `;
  $("detail").textContent =
    `${time}${percent(shares[best])}; next: ${pretty(MODEL.classes[next])}, ${percent(shares[next])}.` +
    (source === "microphone" && quiet * stepSeconds > 3 ? " It is silent: is the microphone on?" : "");
  rows.forEach(({ row, share }, i) => {
    share.textContent = percent(shares[i]);
    row.toggleAttribute("data-top", i === best);
  });
  const sorted = [...spent].sort((a, b) => a - b), middle = sorted[sorted.length >> 1];
  $("latency").textContent = `${middle.toFixed(1)} ms for ${stepSeconds} s of sound (median of ${spent.length} steps)`;
}

function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}

function context(canvas) {
  const { clientWidth, clientHeight } = canvas, scale = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(clientWidth * scale));
  canvas.height = Math.max(1, Math.round(clientHeight * scale));
  return canvas.getContext("2d");
}

function draw() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const live = source === "microphone", most = Math.round(SECONDS_SHOWN / stepSeconds);
  const shown = live ? history.slice(-most) : history;
  const columns = live ? most : Math.max(shown.length, 1);
  rows.forEach(({ canvas }, i) => {
    const pen = context(canvas), width = canvas.width / columns, before = columns - shown.length;
    shown.forEach(({ smoothed }, j) => {
      const share = smoothed[i], light = dark ? 12 + 62 * share : 100 - 58 * share;
      pen.fillStyle = `hsl(215 ${30 + 50 * share}% ${light}%)`;
      const x = Math.floor((live ? before + j : j) * width);
      pen.fillRect(x, 0, Math.ceil(width) + 1, canvas.height);
    });
  });
  $("from").textContent = history.length ? (live ? `${SECONDS_SHOWN} s ago` : clock(FULL * stepSeconds)) : "";
  $("to").textContent = history.length ? (live ? "now" : clock(steps * stepSeconds)) : "";
  drawSpectrogram(dark);
}

// The state holds the bands' sums of the frames that the next clip shares with this one.
function drawSpectrogram(dark) {
  const { kept_frames: frames, bands } = MODEL, sums = engine.state, pen = context($("spectrogram"));
  if (!steps || !frames) return;
  const levels = new Float32Array(frames * bands);
  let low = Infinity, high = -Infinity;
  for (let i = 0; i < levels.length; ++i) {
    levels[i] = MODEL.raw ? sums[i] : Math.log(sums[i] + 1e-9);
    if (MODEL.raw || sums[i] > 0) {
      low = Math.min(low, levels[i]);
      high = Math.max(high, levels[i]);
    }
  }
  low = Math.max(low, high - 12);
  if (MODEL.raw) return drawWave(pen, levels, dark);
  const image = new ImageData(frames, bands);
  for (let frame = 0; frame < frames; ++frame) {
    for (let band = 0; band < bands; ++band) {
      const share = Math.min(1, Math.max(0, (levels[frame * bands + band] - low) / (high - low || 1)));
      const at = 4 * ((bands - 1 - band) * frames + frame), light = dark ? share : 1 - share;
      image.data.set([20 + 225 * light * light, 22 + 226 * light, 40 + 210 * Math.sqrt(light), 255], at);
    }
  }
  const small = document.createElement("canvas");
  small.width = frames;
  small.height = bands;
  small.getContext("2d").putImageData(image, 0, 0);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(small, 0, 0, pen.canvas.width, pen.canvas.height);
}

function drawWave(pen, samples, dark) {
  const { width, height } = pen.canvas;
  pen.fillStyle = dark ? "#86b5f5" : "#1c5fb8";
  for (let x = 0; x < width; ++x) {
    let low = 0, high = 0;
    for (let i = Math.floor((x * samples.length) / width); i < ((x + 1) * samples.length) / width; ++i) {
      low = Math.min(low, samples[i]);
      high = Math.max(high, samples[i]);
    }
    pen.fillRect(x, (height / 2) * (1 - high), 1, Math.max(1, (height / 2) * (high - low)));
  }
}

function show() {
  decide();
  draw();
}

async function openFile(file) {
  await stopListening();
  const mine = start();
  source = "file";
  $("file").value = "";
  let sound;
  try {
    const decoder = new OfflineAudioContext(1, 1, MODEL.sample_rate);
    sound = await decoder.decodeAudioData(await file.arrayBuffer());
  } catch (error) {
    if (mine !== running) return;
    say(`${file.name}: this browser can't read it as sound. Accepted: WAV, FLAC, MP3, Ogg and whatever else it plays.`);
    return;
  }
  if (mine !== running) return;
  const channels = Array.from({ length: sound.numberOfChannels }, (_, i) => sound.getChannelData(i));
  if (MODEL.channel !== "mean" && MODEL.channel >= channels.length) {
    say(`${file.name}: ${channels.length} channel(s); accepted: at least ${MODEL.channel + 1}.`);
    return;
  }
  const mono = MODEL.channel === "mean" && channels.length > 1
    ? channels[0].map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length)
    : channels[MODEL.channel === "mean" ? 0 : MODEL.channel];
  if (mono.length < MODEL.clip_samples) {
    say(`${file.name}: ${sound.duration.toFixed(2)} s; accepted: at least ${MODEL.clip_s} s.`);
    return;
  }
  // Whole steps, which end with the recording.
  const step = MODEL.step_samples, silent = (step - (mono.length % step)) % step;
  let painted = performance.now();
  for (let at = -silent; at < mono.length; at += step) {
    const block = new Float32Array(step);
    block.set(mono.subarray(Math.max(0, at), at + step), Math.max(0, -at));
    if (mine !== running) return;
    await hear(block);
    if (performance.now() - painted > 50) {
      show();
      await new Promise((resolve) => setTimeout(resolve));
      painted = performance.now();
    }
  }
  if (mine !== running) return;
  show();
  $("detail").textContent += ` Whole recording: ${mean()}.`;
}

// The classes of a recording's clips, on the average.
function mean() {
  const shares = MODEL.classes.map((_, i) => history.reduce((sum, { alone }) => sum + alone[i], 0) / history.length);
  const order = shares.map((_, i) => i).sort((a, b) => shares[b] - shares[a]);
  return order.slice(0, 3).map((i) => `${pretty(MODEL.classes[i])} ${percent(shares[i])}`).join(", ");
}

const WORKLET = `registerProcessor("tape", class extends AudioWorkletProcessor {
  process([input]) {
    if (input.length) this.port.postMessage(input.map((channel) => channel.slice()));
    return true;
  }
});`;
let microphone = null;

async function listen() {
  const mine = start();
  source = "microphone";
  try {
    const wanted = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
    if (mine !== running) {
      // Something else was begun while the browser asked.
      stream.getTracks().forEach((track) => track.stop());
      return;
    }
    microphone = { stream, audio: null };
    const audio = (microphone.audio = new AudioContext({ sampleRate: MODEL.sample_rate }));
    await audio.audioWorklet.addModule(`data:text/javascript,${encodeURIComponent(WORKLET)}`);
    const node = new AudioWorkletNode(audio, "tape", { numberOfOutputs: 0 });
    audio.createMediaStreamSource(stream).connect(node);
    stream.getTracks()[0].addEventListener("ended", () => {
      stopListening();
      say("The microphone was switched off or unplugged.");
    });
    let block = new Float32Array(MODEL.step_samples), filled = 0, queue = Promise.resolve();
    node.port.onmessage = ({ data }) => {
      const chosen = MODEL.channel === "mean" ? data : [data[Math.min(MODEL.channel, data.length - 1)]];
      for (let i = 0; i < chosen[0].length; ++i) {
        block[filled++] = chosen.reduce((sum, channel) => sum + channel[i], 0) / chosen.length;
        if (filled < block.length) continue;
        const full = block;
        queue = queue.then(async () => {
          if (mine !== running) return;
          await hear(full);
          if (mine === running) show();
        });
        block = new Float32Array(MODEL.step_samples);
        filled = 0;
      }
    };
    $("listen").textContent = "Stop";
    $("now").dataset.state = "idle";
    $("scene").textContent = "Listening…";
    $("detail").textContent = `The first decision comes after ${MODEL.clip_s} s.`;
    draw();
  } catch (error) {
    if (mine !== running) return;
    await stopListening();
    const reasons = {
      NotSupportedError: `This browser can't give the microphone at ${MODEL.sample_rate} Hz. Open a recording, or take another browser.`,
      NotAllowedError: "The microphone was refused. Allow it in the browser's settings for this page, or open a recording.",
      NotFoundError: "There is no microphone. Open a recording instead.",
      NotReadableError: "Another program is using the microphone. Close it, or open a recording.",
    };
    say(reasons[error.name] || `The microphone can't be used here (${error.message}). Open a recording instead.`);
  }
}

async function stopListening() {
  ++running;
  if (!microphone) return;
  const { stream, audio } = microphone;
  microphone = null;
  stream.getTracks().forEach((track) => track.stop());
  $("listen").textContent = "Listen";
  await audio?.close();
}

$("listen").addEventListener("click", () => (microphone ? stopListening() : listen()));
$("file").addEventListener("change", (event) => event.target.files[0] && openFile(event.target.files[0]));
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (event.dataTransfer.files[0]) openFile(event.dataTransfer.files[0]);
});
addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

openEngine().then(
  (opened) => {
    engine = opened;
    $("listen").disabled = $("file").disabled = false;
    draw();
    document.documentElement.dataset.ready = "true";
  },
  (error) => say(`The model can't be started in this browser (${error.message}). Try a current Chrome, Firefox or Safari.`),
);
