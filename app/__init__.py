"""A page in the browser to play with a run: draw, look at codes, change them, complete pictures.

studio.py does the work and knows no page, html.py makes its parts, page.py wires them with Gradio, serve.py
answers on a port.
"""
