"""Whether what is written still looks like what the codes were trained on."""
