"use strict";
// Classifies a picture in the browser. No request leaves the page: the network and its
// runtime are in the document, gzipped and in base64.

const $ = (id) => document.getElementById(id);
const { size, classes, cover } = JSON.parse($("settings").textContent);
const TOP = 5;
let session = null; // of ONNX Runtime, once it is loaded
let ort = null;
let current = null; // {pixels, probabilities} of the last picture classified
let turn = 0; // counts pictures: an occlusion map of an earlier one stops
let running = Promise.resolve(); // a session computes one batch at a time

// The network ------------------------------------------------------------------------

async function unpacked(id) {
  const text = atob($(id).textContent);
  const packed = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  $(id).remove();
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function load() {
  const code = new Blob([await unpacked("module")], { type: "text/javascript" });
  ort = await import(URL.createObjectURL(code));
  ort.env.wasm.numThreads = 1; // threads need headers that a file does not have
  ort.env.wasm.wasmBinary = await unpacked("wasm");
  session = await ort.InferenceSession.create(await unpacked("model"));
}

const loaded = load();

// Probabilities, a row per picture; `pixels` holds pictures of size x size x RGB.
async function classify(pixels) {
  await loaded;
  const count = pixels.length / (size * size * 3);
  const images = new ort.Tensor("uint8", pixels, [count, size, size, 3]);
  const before = running;
  // One that failed, for lack of memory say, does not take the next ones along.
  running = before.catch(() => {}).then(() => session.run({ images }, ["probabilities"]));
  const { probabilities } = await running;
  return Array.from({ length: count }, (_, i) =>
    probabilities.data.slice(i * classes.length, (i + 1) * classes.length));
}

// From a picture to pixels: vgg_jax/data/pictures.py, with Pillow's arithmetic ---------

// Half to even, as Python rounds.
function rounded(x) {
  const down = Math.floor(x);
  return x - down === 0.5 ? down + (down % 2) : Math.round(x);
}

// Which pixels of a row, with which weights, make each new one: bilinear, antialiased.
function weightsOf(from, to) {
  const scale = from / to, wide = Math.max(scale, 1);
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - wide + 0.5));
    const end = Math.min(from, Math.trunc(centre + wide + 0.5));
    const shares = [];
    for (let x = first; x < end; x++) {
      shares.push(Math.max(0, 1 - Math.abs((x - centre + 0.5) * (1 / wide))));
    }
    const sum = shares.reduce((a, b) => a + b, 0);
    return { first, shares: shares.map((share) => Math.trunc(0.5 + (share / sum) * 2 ** 22)) };
  });
}

// Resamples along one axis: `lines` lines, `step` apart, of values `stride` apart.
function resample(pixels, from, to, lines, line, stride, newLine, newStride) {
  if (from === to) return pixels;
  const result = new Uint8ClampedArray(lines * to * 3);
  weightsOf(from, to).forEach(({ first, shares }, i) => {
    for (let y = 0; y < lines; y++) {
      for (let c = 0; c < 3; c++) {
        let sum = 2 ** 21;
        for (let k = 0, at = y * line + first * stride + c; k < shares.length; k++, at += stride) {
          sum += pixels[at] * shares[k];
        }
        result[y * newLine + i * newStride + c] = Math.floor(sum / 2 ** 22);
      }
    }
  });
  return result;
}

// The centre square of RGB pixels, its side scaled to `size`.
function fit(pixels, width, height) {
  const smaller = Math.min(width, height);
  const [wide, high] = [width, height].map((side) => Math.floor((side * size) / smaller));
  pixels = resample(pixels, width, wide, height, 3 * width, 3, 3 * wide, 3);
  pixels = resample(pixels, height, high, wide, 3, 3 * wide, 3, 3 * wide);
  const left = rounded((wide - size) / 2), top = rounded((high - size) / 2);
  const square = new Uint8Array(size * size * 3);
  for (let y = 0; y < size; y++) {
    const start = 3 * ((top + y) * wide + left);
    square.set(pixels.subarray(start, start + 3 * size), 3 * y * size);
  }
  return square;
}

// RGB on white of anything that a canvas draws.
function rgb(source, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  brush.fillStyle = "white";
  brush.fillRect(0, 0, width, height);
  brush.drawImage(source, 0, 0, width, height);
  const { data } = brush.getImageData(0, 0, width, height);
  const pixels = new Uint8ClampedArray(width * height * 3);
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
    pixels[to] = data[from];
    pixels[to + 1] = data[from + 1];
    pixels[to + 2] = data[from + 2];
  }
  return pixels;
}

// What is on the page -------------------------------------------------------------------

function say(text) {
  $("said").textContent = text;
}

function draw(pixels) {
  const canvas = $("seen");
  canvas.width = canvas.height = size;
  const image = new ImageData(size, size);
  for (let i = 0; i < size * size; i++) {
    image.data.set([pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2], 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.hidden = false;
  $("drop").classList.add("filled");
}

function best(probabilities) {
  const order = Array.from(probabilities.keys()).sort((a, b) => probabilities[b] - probabilities[a]);
  return order.slice(0, TOP);
}

function percent(share) {
  return `${(100 * share).toFixed(2)}%`;
}

function answer(probabilities) {
  $("answers").replaceChildren(...best(probabilities).map((i) => {
    const row = document.createElement("li"), line = document.createElement("div");
    const name = document.createElement("b"), share = document.createElement("output");
    const bar = document.createElement("i");
    name.textContent = classes[i];
    share.textContent = percent(probabilities[i]);
    bar.style.setProperty("--share", probabilities[i]);
    line.append(name, share);
    row.append(line, bar);
    return row;
  }));
}

async function show(pixels, text) {
  turn++;
  clearHeat();
  draw(pixels);
  const [probabilities] = await classify(pixels);
  current = { pixels, probabilities };
  answer(probabilities);
  $("explain").disabled = false;
  say(text);
}

async function open(file) {
  stopCamera();
  let picture;
  try {
    picture = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    say(`${file.name || "This"} is not a picture that this browser reads.`);
    return;
  }
  const { width, height } = picture;
  const pixels = fit(rgb(picture, width, height), width, height);
  const scaled = width === size && height === size ? "" : `, seen as ${size} x ${size}`;
  if (!session) say("Loading the network ...");
  $("explain").disabled = true; // until this one is classified
  await show(pixels, `${file.name || "picture"}: ${width} x ${height} pixels${scaled}.`);
}

// Where it looks: a square covers one place after the other ----------------------------

function clearHeat() {
  $("heat").hidden = true;
  $("explain").setAttribute("aria-pressed", "false");
}

async function explain() {
  if (!$("heat").hidden) return clearHeat();
  const { pixels, probabilities } = current, mine = turn;
  const [winner] = best(probabilities);
  const side = Math.max(1, Math.round(size / 4)), step = Math.max(1, side >> 1);
  const starts = [];
  for (let at = step - side; at < size; at += step) starts.push(at);
  const sum = new Float32Array(size * size), seen = new Float32Array(size * size);
  $("explain").disabled = true;
  let worst = 0;
  for (const [row, top] of starts.entries()) {
    say(`Covering one place after the other: ${Math.round((100 * row) / starts.length)}%`);
    await new Promise((resolve) => setTimeout(resolve)); // the page stays alive
    const batch = new Uint8Array(starts.length * pixels.length);
    starts.forEach((left, i) => batch.set(covered(pixels, left, top, side), i * pixels.length));
    const rows = await classify(batch);
    if (turn !== mine) return;
    rows.forEach((found, i) => {
      const drop = probabilities[winner] - found[winner];
      worst = Math.max(worst, drop);
      within(starts[i], top, side, (at) => { sum[at] += drop; seen[at]++; });
    });
  }
  drawHeat(sum.map((total, i) => total / seen[i]));
  $("explain").disabled = false;
  $("explain").setAttribute("aria-pressed", "true");
  const least = percent(Math.max(0, probabilities[winner] - worst));
  const key = (colour) => {
    const box = document.createElement("span");
    box.className = "key";
    box.style.background = `var(--${colour})`;
    return box;
  };
  $("said").replaceChildren(
    key("warm"), ` Covering this place makes "${classes[winner]}" less probable, `,
    key("cool"), ` more probable; at the worst place ${percent(probabilities[winner])} becomes ${least}.`);
}

function within(left, top, side, visit) {
  for (let y = Math.max(0, top); y < Math.min(size, top + side); y++) {
    for (let x = Math.max(0, left); x < Math.min(size, left + side); x++) visit(y * size + x);
  }
}

function covered(pixels, left, top, side) {
  const copy = pixels.slice();
  within(left, top, side, (at) => copy.set(cover, 3 * at));
  return copy;
}

function drawHeat(values) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).match(/[0-9a-f]{2}/gi).map((x) => parseInt(x, 16));
  const warm = colour("--warm"), cool = colour("--cool");
  const most = values.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-6);
  const canvas = $("heat"), image = new ImageData(size, size);
  canvas.width = canvas.height = size;
  values.forEach((value, i) => {
    image.data.set([...(value > 0 ? warm : cool), 200 * (Math.abs(value) / most)], 4 * i);
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.hidden = false;
}

// The camera ----------------------------------------------------------------------------

async function toggleCamera() {
  const video = $("video");
  if (video.srcObject) return stopCamera();
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    return say(`The camera cannot be used here (${error.name}).`);
  }
  await video.play();
  $("camera").textContent = "Stop: keep this picture";
  $("camera").setAttribute("aria-pressed", "true");
  while (video.srcObject) {
    const { videoWidth: width, videoHeight: height } = video;
    await show(fit(rgb(video, width, height), width, height), "Live from the camera.");
    await new Promise(requestAnimationFrame);
  }
}

function stopCamera() {
  const video = $("video");
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
  $("camera").textContent = "Camera";
  $("camera").setAttribute("aria-pressed", "false");
}

// What the reader does ------------------------------------------------------------------

function failed(error) {
  say(`This does not work here: ${error.message ?? error}`);
}

function opened(files) {
  const file = Array.from(files).find((each) => each.type.startsWith("image/")) ?? files[0];
  if (file) open(file).catch(failed);
}

$("choose").onclick = $("drop").onclick = () => $("file").click();
$("drop").onkeydown = (event) => {
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    $("file").click();
  }
};
$("file").onchange = (event) => {
  opened(event.target.files);
  event.target.value = "";
};
$("camera").onclick = () => toggleCamera().catch(failed);
$("explain").onclick = () => explain().catch(failed);
addEventListener("paste", (event) => opened(event.clipboardData.files));
addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
addEventListener("dragleave", () => $("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  opened(event.dataTransfer.files);
});
loaded.then(() => { if (!current) say("Ready. It works without a connection."); }).catch(failed);
