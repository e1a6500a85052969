import { defineConfig } from "vite";

export default defineConfig({
  build: {
    outDir: "../../dist",
    emptyOutDir: true,
    target: "es2022",
    // The page's policy refuses data: fonts and scripts, and a file of its own is cached.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  worker: { format: "es" },
  server: { proxy: { "/v1": "http://127.0.0.1:8080" } },
});
