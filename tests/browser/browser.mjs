// Chromium as the tests use it: no network of its own, and every complaint of a page is kept.

import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

// The browser tests share the web workspace's one lock file.
const { chromium } = createRequire(new URL("../../web/package.json", import.meta.url))("playwright-core");

export const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";

export const ARGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export function startBrowser(...more) {
  return chromium.launch({
    executablePath: EXECUTABLE,
    args: [...ARGS, ...more],
  });
}

/** A fresh profile and a page in it; `complaints` collects errors and refusals by the page's policy. */
export async function openPage(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error" && !/favicon/.test(message.text())) complaints.push(message.text());
  });
  return { context, page, complaints };
}

/** Keeps a picture where `SCREENSHOTS` names a folder. */
export async function picture(page, name) {
  const folder = process.env.SCREENSHOTS;
  if (!folder) return;
  mkdirSync(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
}

/** Keeps both themes, wide and narrow, where `SCREENSHOTS` names a folder. */
export async function portrait(page, name) {
  if (!process.env.SCREENSHOTS) return;
  for (const colorScheme of ["light", "dark"])
    for (const width of [1280, 390]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 900 });
      await picture(page, `${name}-${colorScheme}-${width}`);
    }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1280, height: 900 });
}

/** Waits until what the page says belongs to what it shows. */
export const settled = (page) =>
  eventually(
    () => page.evaluate(() => document.querySelector("bs-app").studio.settled),
    (done) => done,
    "the answer",
    120_000,
  );

/** Whether the page is no wider than the screen; what is too wide scrolls in a place of its own. */
export async function fits(page, width) {
  await page.setViewportSize({ width, height: 844 });
  return page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
}

/** Waits until `read` gives something that `enough` accepts, and returns it. */
export async function eventually(read, enough, what, ms = 60_000) {
  const end = Date.now() + ms;
  let last;
  for (;;) {
    last = await read();
    if (enough(last)) return last;
    if (Date.now() > end) throw new Error(`${what}: still ${JSON.stringify(last)} after ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
