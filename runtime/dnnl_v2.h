/* oneDNN 3.x calls on 2.6. */
