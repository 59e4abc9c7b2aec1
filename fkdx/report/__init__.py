"""Reports: what a label file or a run says, on one page for a browser.

`survey` reads a label file once, `problems` names what looks wrong in it, `inspector` picks images to look
at, `runs` reads the logs of runs, `charts` draws both, `page` puts everything into one HTML file, and
`server` shows the same page for sets that are too large for one file.
"""
