// The camera: every frame is answered through a stream of the model, and none is kept unless it is taught.

import { PatchError, type RunOptions, type Stream } from "@backstitch/client";
import { square } from "./logic/photo.js";
import { namedPatches } from "./logic/whatif.js";
import { Looking } from "./scene.js";
import type { Studio } from "./studio.js";

/** Least milliseconds between two answers, so that a quick device keeps some rest. */
const PACE_MS = 80;

const WITHOUT = "open, drop or paste a picture instead";

/** Why there is no camera, by the names of the Media Capture specification. */
const REFUSALS: Record<string, [code: string, message: string, hint: string]> = {
  NotAllowedError: [
    "camera_refused",
    "this page may not use the camera",
    `allow it at the camera sign beside the address, then press Camera again; or ${WITHOUT}`,
  ],
  NotFoundError: ["camera_missing", "this device has no camera", WITHOUT],
  NotReadableError: ["camera_busy", "another program uses the camera", `close that program, or ${WITHOUT}`],
};

export class Camera {
  /** Shows what the camera sees, wherever the page puts it. */
  readonly video = document.createElement("video");
  /** Answers in a second, lately. */
  rate = 0;
  #media: MediaStream | undefined;
  #starting = false;

  constructor(private readonly studio: Studio) {
    this.video.muted = this.video.playsInline = true;
    // Nobody is filmed who has turned to something else.
    document.addEventListener("visibilitychange", () => document.hidden && this.stop());
  }

  get on(): boolean {
    return this.#media !== undefined;
  }

  get starting(): boolean {
    return this.#starting;
  }

  stop(): void {
    for (const track of this.#media?.getTracks() ?? []) track.stop();
    this.#media = undefined;
    this.video.srcObject = null;
    this.studio.changed();
  }

  /** Asks for the camera and answers frame after frame until it is stopped. */
  async start(): Promise<void> {
    const scene = this.studio.staged;
    if (this.on || this.#starting || !this.studio.model || !(scene instanceof Looking)) return;
    this.#starting = true;
    this.studio.problem = undefined;
    this.studio.changed();
    try {
      await this.#connect();
    } catch (thrown) {
      this.stop();
      this.studio.report(refusal(thrown));
      return;
    } finally {
      this.#starting = false;
      this.studio.changed();
    }
    try {
      await this.#follow(scene);
    } catch (thrown) {
      this.studio.report(thrown);
    } finally {
      this.stop();
      await this.studio.rerun();
    }
  }

  async #connect(): Promise<void> {
    // Browsers give no camera to a page that came over plain HTTP.
    const devices = (navigator as { mediaDevices?: MediaDevices }).mediaDevices;
    if (!devices)
      throw new PatchError(
        "camera_insecure",
        "browsers give the camera to secure pages alone",
        `open this page by https or on localhost, or ${WITHOUT}`,
      );
    const video = { facingMode: "environment", width: { ideal: 640 }, height: { ideal: 480 } };
    this.#media = await devices.getUserMedia({ video, audio: false });
    this.video.srcObject = this.#media;
    this.#media.getVideoTracks()[0]?.addEventListener("ended", () => {
      this.stop();
      this.studio.report(new PatchError("camera_ended", "the camera was taken away", "press Camera again"));
    });
    await this.video.play();
  }

  async #follow(scene: Looking): Promise<void> {
    let [stream, asked]: [Stream | undefined, string] = [undefined, ""];
    try {
      while (this.on) {
        const began = performance.now();
        // The switches of the page hold from the next frame on.
        const options = this.#options();
        if (asked !== JSON.stringify(options)) {
          await stream?.close();
          asked = JSON.stringify(options);
          stream = await this.studio.model!.stream(options);
        }
        const frame = square(this.video);
        const answer = frame && (await stream!.push(scene.before(frame))).at(-1);
        if (answer && this.on) {
          scene.show(frame, "what the camera sees");
          this.studio.answered(answer);
        }
        await new Promise((next) => setTimeout(next, Math.max(0, PACE_MS - (performance.now() - began))));
        this.rate = 0.8 * this.rate + 0.2 * (1000 / (performance.now() - began));
      }
    } finally {
      await stream?.close().catch(() => undefined);
    }
  }

  #options(): RunOptions {
    const { automatic, overrides, limitMs } = this.studio;
    const patches = (automatic && namedPatches(automatic.candidates, overrides)) ?? "auto";
    return { patches, compare: true, costLimit: { ms: limitMs ?? null } };
  }
}

/** What a person can do about it. */
function refusal(thrown: unknown): PatchError {
  const known = REFUSALS[(thrown as DOMException).name];
  return known ? new PatchError(...known) : PatchError.from(thrown, "camera_failed");
}
