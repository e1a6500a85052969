// What the page knows of libraries before one is open.

/** What the libraries take, and whose data the samples are; those with a title are in the switch. */
export const SOURCES: Record<string, { title?: string; modality: string; shares: boolean; credit: string }> =
  {
    fashion: {
      title: "Fashion",
      modality: "image",
      shares: true,
      credit: "Pictures: Fashion-MNIST by Zalando (MIT licence).",
    },
    sentiment: {
      title: "Sentences",
      modality: "text",
      shares: true,
      credit: "Sentences: the rated corpora of VADER by C.J. Hutto (MIT licence).",
    },
    motion: {
      title: "Motion",
      modality: "series",
      shares: true,
      credit: "Recordings: seglearn by David Burns (BSD licence).",
    },
    photos: {
      title: "Photos",
      modality: "image",
      shares: true,
      credit: "Photographs: from scikit-image (CC0 and public domain); the model has seen ImageNet.",
    },
    anomalies: {
      title: "Signals",
      modality: "series",
      shares: true,
      credit: "Heartbeats: MIT-BIH Arrhythmia Database, Moody and Mark, PhysioNet (ODC-By 1.0).",
    },
    "fashion-compact": {
      modality: "image",
      shares: false,
      credit: "Pictures: Fashion-MNIST by Zalando (MIT licence).",
    },
  };
