// Tokens and small elements that the page and the console share.

export * from "./format.js";
export { mark } from "./mark.js";
export { Panel } from "./panel.js";
export { Plot, type Series } from "./plot.js";
export { sheet } from "./sheet.js";
export { ThemeButton } from "./theme.js";
export { vars } from "./vars.js";
