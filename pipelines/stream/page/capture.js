// Frames of a <video>, a camera's or a file's, as JPEGs: the newest only, and none while the last is still on its way.
const SIDE = 640;
const QUALITY = 0.85;
const BEHIND = 200000;

export class Capture {
  /** send(blob): gives one frame to the server. late(): bytes still on their way. */
  constructor(video, fps, { send, late }) {
    this.video = video;
    this.send = send;
    this.late = late;
    this.skipped = 0;
    this.busy = false;
    this.paused = false;
    this.canvas = document.createElement("canvas");
    this.timer = setInterval(() => this.next(), 1000 / fps);
  }

  next() {
    const { videoWidth: width, videoHeight: height } = this.video;
    if (this.paused || !width || this.video.ended || this.video.seeking) return;
    if (this.busy || this.late() > BEHIND) {
      this.skipped += 1;
      return;
    }
    const scale = Math.min(1, SIDE / Math.max(width, height));
    this.canvas.width = Math.max(1, Math.round(width * scale));
    this.canvas.height = Math.max(1, Math.round(height * scale));
    this.canvas.getContext("2d").drawImage(this.video, 0, 0, this.canvas.width, this.canvas.height);
    const at = this.video.currentTime;
    this.busy = true;
    this.canvas.toBlob((blob) => {
      this.busy = false;
      if (blob) this.send(blob, at);
    }, "image/jpeg", QUALITY);
  }

  end() {
    clearInterval(this.timer);
  }
}

/** The camera as a stream, or an Error that says in a sentence what to do. */
export async function openCamera() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("The browser gives cameras to https pages and to localhost only. Start the server with --tls self-signed.");
  }
  try {
    return await navigator.mediaDevices.getUserMedia({
      video: { width: { ideal: 1280 }, facingMode: { ideal: "environment" } },
      audio: false,
    });
  } catch (error) {
    const why = {
      NotAllowedError: "The camera was refused. Allow it in the browser's address bar, then try again.",
      NotFoundError: "There is no camera on this device. Choose a file or a stream.",
      NotReadableError: "Another program uses the camera. Close it, then try again.",
    };
    throw new Error(why[error.name] ?? `The camera did not start (${error.name}).`);
  }
}
