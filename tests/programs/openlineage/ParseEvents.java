import io.openlineage.client.OpenLineage;
import io.openlineage.client.OpenLineageClientUtils;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * Parses the events on the standard input, one JSON object a line, with the classes of openlineage-java.
 *
 * <p>For each event it prints the event as these classes serialize it; and, as the last line, how many facets have
 * a class of their own, by name. An event that cannot be parsed ends the program with its exception.
 */
public final class ParseEvents {
  private static final Map<String, Integer> typed = new TreeMap<>();

  public static void main(String[] arguments) throws IOException, ReflectiveOperationException {
    PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    BufferedReader lines =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      OpenLineage.RunEvent event = OpenLineageClientUtils.runEventFromJson(line);
      count(event.getRun().getFacets());
      count(event.getJob().getFacets());
      for (OpenLineage.InputDataset input : event.getInputs()) {
        count(input.getFacets());
        count(input.getInputFacets());
      }
      for (OpenLineage.OutputDataset output : event.getOutputs()) {
        count(output.getFacets());
        count(output.getOutputFacets());
      }
      out.println(OpenLineageClientUtils.toJson(event));
    }
    out.println(OpenLineageClientUtils.toJson(typed));
  }

  /** Counts the facets that a getter of their container returns; the others are additional properties. */
  private static void count(Object facets) throws ReflectiveOperationException {
    if (facets == null) {
      return;
    }
    for (Method method : facets.getClass().getMethods()) {
      String name = method.getName();
      boolean isFacet =
          name.startsWith("get") && !List.of("getClass", "getAdditionalProperties").contains(name);
      if (isFacet && method.getParameterCount() == 0 && method.invoke(facets) != null) {
        String key = Character.toLowerCase(name.charAt(3)) + name.substring(4);
        typed.merge(key, 1, Integer::sum);
      }
    }
  }
}
