"""A page in the browser to play with a run: draw, look at codes, change them, complete pictures.

studio.py does the work and knows no page, html.py makes its parts, the tabs and page.py wire them with
Gradio, serve.py answers on a port.
"""
