// The library's built-in sentences.

export interface Sentence {
  text: string;
  label: number;
  /** The patch that knows sentences of this kind. */
  domain: string;
}

export function readSentences(bytes: Uint8Array): Sentence[] {
  return (JSON.parse(new TextDecoder().decode(bytes)) as { samples: Sentence[] }).samples;
}
