/** The webcam: live pictures at a steady rate for as long as the page is looked at, and one of them to keep. */

// Ten answers a second at most; what is slower is waited for, so that nothing queues up.
const EVERY_MS = 100;
// The page itself must get a turn too.
const LEAST_PAUSE_MS = 30;
const WIDTH_PX = 640;
const HIDDEN = "The camera was stopped, since this page could not be seen.";
const FAULTS = {
  NotAllowedError: "The camera was not allowed. Allow it for this address in the browser's settings, or choose a picture.",
  NotFoundError: "There is no camera here. Connect one and try again, or choose a picture.",
  NotReadableError: "The camera is in use, or does not answer. Close what else uses it and try again.",
  SecurityError: "Browsers allow a camera over https, or on the machine that serves the page: open it so, or choose a picture.",
};
FAULTS.AbortError = FAULTS.NotReadableError;
FAULTS.OverconstrainedError = FAULTS.NotFoundError;

/**
 * @typedef {{live: (frame: OffscreenCanvas) => Promise<void>, take: (file: File) => void, say: (text: string) => void,
 *   changed: (on: boolean) => void}} Host
 *   shows and answers a frame, takes one as the picture, says what is wrong, is told that the camera went on or off
 */

/**
 * Get the camera's part of the page ready; nothing is asked of anybody before `start`.
 *
 * @param {HTMLElement} panel  holds what works the camera; hidden while it is off
 * @param {HTMLElement} note  where it is said that the camera stopped by itself
 * @param {Host} host
 * @returns {{start: () => Promise<void>, stop: () => void, isOn: () => boolean}}
 */
export function openCamera(panel, note, host) {
  /** @type {any[]} */
  const [choice, mirrored, take] = ["select", "input", "button"].map((tag) => panel.querySelector(tag));
  const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
  const frame = new OffscreenCanvas(1, 1);
  /** @type {MediaStream | null} */
  let stream = null;
  // Of the newest start or stop: what belongs to an earlier one is let go of.
  let turn = 0;

  function stop(why = "") {
    turn++;
    note.textContent = why;
    if (!stream) return;
    release(stream);
    stream = video.srcObject = null;
    panel.hidden = true;
    host.changed(false);
  }

  async function start(deviceId) {
    stop();
    const mine = turn;
    try {
      const asked = await ask(deviceId);
      if (mine !== turn) {
        release(asked);
        return;
      }
      stream = video.srcObject = asked;
      await video.play();
      await settle(mine);
    } catch (fault) {
      // Whoever stopped it meanwhile knows.
      if (mine !== turn) return;
      stop();
      host.say(FAULTS[fault.name] ?? `The camera cannot be used (${fault.message}). Choose a picture.`);
    }
  }

  /** Show what there is to choose, and answer frame after frame. */
  async function settle(mine) {
    const [track] = stream.getVideoTracks();
    const { deviceId, facingMode } = track.getSettings();
    track.addEventListener("ended", () => {
      if (mine !== turn) return;
      stop();
      host.say("The camera has stopped sending pictures. Connect it again, or choose a picture.");
    });
    const cameras = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
    if (mine !== turn) return;
    choice.replaceChildren(...cameras.map((each, i) => new Option(each.label || `Camera ${i + 1}`, each.deviceId)));
    choice.value = deviceId;
    choice.parentElement.hidden = cameras.length < 2;
    mirrored.checked = facingMode === "user";
    panel.hidden = false;
    host.changed(true);
    run(mine);
  }

  async function run(mine) {
    while (mine === turn) {
      const begun = performance.now();
      await host.live(look());
      const left = EVERY_MS - (performance.now() - begun);
      await new Promise((resolve) => setTimeout(resolve, Math.max(LEAST_PAUSE_MS, left)));
    }
  }

  /** The camera's picture of now: what is seen is what is answered, mirrored or not. */
  function look() {
    [frame.width, frame.height] = [video.videoWidth, video.videoHeight];
    const pen = frame.getContext("2d", { willReadFrequently: true });
    if (mirrored.checked) pen.setTransform(-1, 0, 0, 1, frame.width, 0);
    pen.drawImage(video, 0, 0);
    return frame;
  }

  async function keep() {
    const taken = look().convertToBlob({ type: "image/png" });
    stop();
    host.take(new File([await taken], "camera.png", { type: "image/png" }));
  }

  choice.addEventListener("change", () => start(choice.value));
  take.addEventListener("click", keep);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden || document.visibilityState === "hidden") stop(stream ? HIDDEN : "");
  });
  return { start: () => start(), stop: () => stop(), isOn: () => stream !== null };
}

/** Ask for a camera: the one that is named, else the one that looks away from whoever holds the device. */
async function ask(deviceId) {
  if (!navigator.mediaDevices?.getUserMedia) throw new DOMException("no secure context", "SecurityError");
  const which = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "environment" };
  return navigator.mediaDevices.getUserMedia({ video: { ...which, width: { ideal: WIDTH_PX } }, audio: false });
}

function release(stream) {
  for (const track of stream.getTracks()) track.stop();
}
